"""ShipStream's Merchant API: JSON-RPC 2.0 at one path, with ``login`` and ``call``."""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import cast

from starlette.types import Scope

from hookline.api.compat.base import Answer, Ask, Operation
from hookline.api.compat.shipstream import reading, rpc
from hookline.api.compat.shipstream.rpc import Call, RpcError
from hookline.api.compat.shipstream.webhooks import METHODS, Visit, perform
from hookline.api.http import header
from hookline.api.keyring import Caller
from hookline.api.services import Services
from hookline.core.errors import Forbidden, HooklineError, Unauthorized
from hookline.core.model import ApiKey, Tenant

PATH = "/shipstream/api/jsonrpc"
CHALLENGE = b'Basic realm="hookline", charset="UTF-8"'
SESSION_SECONDS = 86_400
"""A session ends after 24 hours (page "API Basics")."""
RESOURCE = "webhook"

_STRANGER = Caller(ApiKey("", None, "", b"", "", (), 0), None, frozenset())
"""Who sends no credentials with HTTP, and has to bring a session."""
_NOBODY = Tenant(0, "", "", "shipstream", 0)


class ShipStream:
    """See ``Platform``."""

    prefix = "/shipstream"
    challenge = CHALLENGE
    any_case = False

    @property
    def operations(self) -> list[Operation]:
        """The one path."""
        return [Operation("POST", PATH, answer, scope=None)]

    async def identify(self, services: Services, scope: Scope) -> tuple[Caller, Tenant]:
        """The owner of the Basic credentials. Raises ``Unauthorized`` for wrong ones."""
        authorization = header(scope, b"authorization")
        if not authorization:
            return _STRANGER, _NOBODY
        return await _key_owner(services, *_basic(authorization))

    def failure(self, error: HooklineError, request_id: str) -> Answer:
        """An error of the request as a whole keeps its HTTP status."""
        code = rpc.INTERNAL if error.status >= 500 else rpc.INVALID
        if isinstance(error, (Unauthorized, Forbidden)):
            code = rpc.DENIED
        return Answer(RpcError(code, error.detail, error.faults).answer(None), error.status)


async def answer(ask: Ask) -> Answer:
    """All calls of one request, one after the other. Errors of calls are answered with HTTP status 200."""
    try:
        requests = rpc.read_requests(ask.body)
    except RpcError as error:
        return Answer(error.answer(None))
    if ask.caller is _STRANGER and any(_needs_credentials(call) for call in requests.calls):
        return _challenge(None if requests.batch else requests.calls[0])
    results = [await _outcome(ask, call) for call in requests.calls]
    told = [result for result in results if result is not None]
    if not told:
        return Answer(status=204)
    return Answer(told if requests.batch else told[0])


def _needs_credentials(call: Call | RpcError) -> bool:
    """Nothing is done before the answer 401, so that the client can send the whole request again."""
    if isinstance(call, RpcError) or call.method != "call" or not isinstance(call.params, list):
        return False
    params = cast("list[object]", call.params)
    return not (params and params[0])


def _challenge(call: Call | RpcError | None) -> Answer:
    call_id = call.answer_id if isinstance(call, Call) else None
    denied = RpcError(rpc.DENIED, "send the tenant's id and key with HTTP Basic, or a session from login")
    return Answer(denied.answer(call_id), 401, [(b"www-authenticate", CHALLENGE)])


async def _outcome(ask: Ask, call: Call | RpcError) -> dict[str, object] | None:
    if isinstance(call, RpcError):
        return call.answer(call.id)
    try:
        result = call.answer(await _run(ask, call))
    except RpcError as error:
        result = error.answer(call.answer_id)
    except (Unauthorized, Forbidden) as error:
        result = RpcError(rpc.DENIED, error.detail).answer(call.answer_id)
    except HooklineError as error:
        result = RpcError(rpc.INTERNAL, error.detail).answer(call.answer_id)
    return None if call.is_notification else result


async def _run(ask: Ask, call: Call) -> object:
    if call.method not in _PROCEDURES:
        how = f'; send "call" with the params [session or null, "{RESOURCE}.…", […]]'
        raise RpcError(rpc.NO_METHOD, f"there are {' and '.join(_PROCEDURES)}{how}")
    if not isinstance(call.params, list):
        raise RpcError(rpc.PARAMS, "params: must be an array")
    return await _PROCEDURES[call.method](ask, cast("list[object]", call.params))


# --- login --------------------------------------------------------------------------------------------------


async def _login(ask: Ask, params: list[object]) -> str:
    """A session: 32 hexadecimal digits."""
    if len(params) < 2 or None in params[:2]:
        raise RpcError(rpc.MISSING, "login takes a user name (the tenant's id) and a key")
    user, key = params[:2]
    if len(params) > 2 or not isinstance(user, str) or not isinstance(key, str):
        raise RpcError(rpc.PARAMS, "login takes two texts: user name and key")
    caller, _ = await _key_owner(ask.services, user, key)
    if caller.tenant is None:
        raise Unauthorized("an operator key has no sessions; use one of the tenant's")
    return await ask.services.tenants.log_in(caller.key, SESSION_SECONDS)


async def _key_owner(services: Services, user: str, secret: str) -> tuple[Caller, Tenant]:
    """The caller with this key, for the tenant that it names. Raises ``Unauthorized``, also for a session: one
    session must not open the next."""
    caller = await services.keyring.find_secret(secret)
    tenant = caller.tenant or await services.keyring.tenant(user)
    if caller.key.session_of is not None or tenant is None or tenant.id != user:
        raise Unauthorized("the user name is the tenant's id, and the password one of its keys")
    return caller, tenant


def _basic(authorization: bytes) -> tuple[str, str]:
    """User name and password (RFC 7617). Raises ``Unauthorized``."""
    scheme, _, encoded = authorization.partition(b" ")
    try:
        text = b64decode(encoded.strip(), validate=True).decode() if scheme.lower() == b"basic" else ""
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    user, colon, password = text.partition(":")
    if not colon:
        raise Unauthorized("send the tenant's id and key as Authorization: Basic …")
    return user, password


# --- call ---------------------------------------------------------------------------------------------------


async def _call(ask: Ask, params: list[object]) -> object:
    if len(params) < 2:
        raise RpcError(
            rpc.MISSING, "call takes a session or null, a path such as webhook.list, and arguments"
        )
    if len(params) > 3:
        raise RpcError(rpc.PARAMS, "call takes three params")
    visit = await _visit(ask, params[0])
    path = params[1]
    resource, point, name = path.partition(".") if isinstance(path, str) else ("", "", "")
    if resource != RESOURCE or not point:
        raise RpcError(rpc.BAD_PATH, f"there are {', '.join(f'{RESOURCE}.{name}' for name in METHODS)}")
    if name not in METHODS:
        raise RpcError(rpc.NOT_CALLABLE, f"{RESOURCE} has {', '.join(METHODS)}")
    return await perform(visit, METHODS[name], reading.arguments(params[2] if len(params) > 2 else None))


async def _visit(ask: Ask, session: object) -> Visit:
    """Who calls: the owner of the session, or without one of the Basic credentials."""
    if not session:
        return Visit(ask.services, ask.caller, ask.tenant)
    if not isinstance(session, str):
        raise RpcError(rpc.PARAMS, "params[0]: must be a session or null")
    try:
        caller = await ask.services.keyring.find_secret(session)
    except Unauthorized:
        raise RpcError(rpc.EXPIRED) from None
    if caller.key.session_of is None or caller.tenant is None:
        raise RpcError(rpc.EXPIRED)
    return Visit(ask.services, caller, caller.tenant)


_PROCEDURES = {"login": _login, "call": _call}
