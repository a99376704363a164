"""JSON-RPC 2.0 as ShipStream speaks it: what comes in, what goes out, and the codes of its errors.

https://www.jsonrpc.org/specification; the codes are those of ShipStream's pages "API Basics" and "Webhook".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from msgspec import UNSET, UnsetType

from hookline.core.errors import Fault, InvalidJson
from hookline.core.reading import parse_json

MAX_BATCH = 50
"""Calls in one request; ours, the specification has no limit."""
MAX_ID = 200
_TOLD = 5
"""Faults that a message spells out; ``data`` has all of them."""

PARSE = -32700
INVALID = -32600
NO_METHOD = -32601
PARAMS = -32602
INTERNAL = -32603

DENIED = 2
BAD_PATH = 3
NOT_CALLABLE = 4
EXPIRED = 5
MISSING = 6
STATUS = 100
CREATE_DATA = 101
CREATE_CRASH = 102
UNKNOWN = 103
DELETE_CRASH = 104
NOT_DELETED = 105
NOT_CREATED = 106

TEXTS = {
    PARSE: "Parse error.",
    INVALID: "Invalid Request.",
    NO_METHOD: "Method not found.",
    PARAMS: "Invalid params.",
    INTERNAL: "Internal error.",
    DENIED: "Access denied.",
    BAD_PATH: "Invalid api path.",
    NOT_CALLABLE: "Resource path is not callable.",
    EXPIRED: "Session expired. Try to relogin.",
    MISSING: "Required parameter is missing.",
    STATUS: "Error changing status for specified webhook.",
    CREATE_DATA: "Invalid data given.",
    CREATE_CRASH: "An unexpected error occurred while creating the webhook.",
    UNKNOWN: "Webhook not exists.",
    DELETE_CRASH: "An unexpected error occurred while deleting the webhook.",
    NOT_DELETED: "Webhook not deleted.",
    NOT_CREATED: "Webhook not created.",
}
"""What the pages say of each code; the details follow behind."""

Id = str | int | float | None


class RpcError(Exception):
    """An error of one call. ``code`` is as the pages write it: positive ones go out as -(32000 + code)."""

    def __init__(self, code: int, detail: str = "", faults: Sequence[Fault] = (), *, id: Id = None) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.faults = tuple(faults)
        self.id = id

    @classmethod
    def of_faults(cls, code: int, faults: Sequence[Fault]) -> RpcError:
        """The faults in words and, as ``data``, in full."""
        told = [
            f"{fault.field}: {fault.message}" if fault.field else fault.message for fault in faults[:_TOLD]
        ]
        more = f" (and {len(faults) - _TOLD} more)" if len(faults) > _TOLD else ""
        return cls(code, "; ".join(told) + more, faults)

    def answer(self, id: Id) -> dict[str, object]:
        """The whole answer to the call with this id."""
        code = self.code if self.code < 0 else -(32000 + self.code)
        error: dict[str, object] = {"code": code, "message": f"{TEXTS[self.code]} {self.detail}".rstrip()}
        if self.faults:
            error["data"] = {"faults": self.faults}
        return {"jsonrpc": "2.0", "id": id, "error": error}


@dataclass(frozen=True, slots=True)
class Call:
    """One request object. An ``id`` of UNSET makes it a notification."""

    method: str
    params: object
    id: Id | UnsetType

    @property
    def is_notification(self) -> bool:
        """Whether nobody waits for an answer."""
        return self.id is UNSET

    @property
    def answer_id(self) -> Id:
        """The id for an answer."""
        return None if isinstance(self.id, UnsetType) else self.id

    def answer(self, result: object) -> dict[str, object]:
        """The whole answer."""
        return {"jsonrpc": "2.0", "id": self.answer_id, "result": result}


@dataclass(frozen=True, slots=True)
class Requests:
    """What one HTTP request asks for. ``batch`` says whether the answers go into an array."""

    calls: Sequence[Call | RpcError]
    batch: bool


def read_requests(body: bytes) -> Requests:
    """The calls in a body, in order; an error stands where one is not a request.

    Raises ``RpcError`` if nothing of it can be used.
    """
    try:
        value = parse_json(body)
    except InvalidJson as error:
        raise RpcError(PARSE, error.detail) from None
    if not isinstance(value, list):
        return Requests([_call(value)], batch=False)
    items = cast("list[object]", value)
    if not 1 <= len(items) <= MAX_BATCH:
        raise RpcError(INVALID, f"a batch has 1 to {MAX_BATCH} calls, this one has {len(items)}")
    return Requests([_call(item) for item in items], batch=True)


def _call(value: object) -> Call | RpcError:
    if not isinstance(value, dict):
        return RpcError(INVALID, "a call is a JSON object")
    members = cast("dict[str, object]", value)
    given = members.get("id", UNSET)
    known = given is UNSET or _is_id(given)
    faults = _envelope_faults(members)
    if not known:
        faults.append(Fault("id", f"must be a text of up to {MAX_ID} characters, a number or null"))
    if faults:
        error = RpcError.of_faults(INVALID, faults)
        error.id = cast("Id", given) if known and given is not UNSET else None
        return error
    return Call(cast("str", members["method"]), members.get("params"), cast("Id | UnsetType", given))


def _envelope_faults(members: dict[str, object]) -> list[Fault]:
    faults: list[Fault] = []
    if members.get("jsonrpc") not in ("2.0", 2):  # the pages write the number 2.0
        faults.append(Fault("jsonrpc", 'must be "2.0"'))
    if not isinstance(members.get("method"), str):
        faults.append(Fault("method", "must be a text: login or call"))
    return faults


def _is_id(id: object) -> bool:
    if isinstance(id, str):
        return len(id) <= MAX_ID
    return id is None or (isinstance(id, (int, float)) and not isinstance(id, bool))
