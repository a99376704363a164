"""Turning JSON from outside into Structs, strictly, and naming *everything* that is wrong with it at once: all that
somebody can have meant to send. What has hundreds of faults has them by accident or on purpose, and gets the first.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from functools import lru_cache
from itertools import islice
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.structs import FieldInfo, fields

from hookline.core.errors import Fault, InvalidInput, InvalidJson

T = TypeVar("T")

MAX_FAULTS = 100
"""Where looking for further faults ends: a body of a megabyte has room for so many that naming them takes minutes."""
_SHOWN = 80
"""Characters of a name that an error repeats."""


def parse_json(body: bytes | Raw) -> object:
    """The value of a JSON text. Raises ``InvalidJson``, also for names that occur twice in an object, NaN, and
    nesting too deep to follow."""
    try:
        value: object = msgspec.json.decode(body)
        json.loads(bytes(body), object_pairs_hook=_refuse_duplicates)
    except RecursionError:
        raise InvalidJson("the body is nested too deeply") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidJson(f"the body is not valid JSON: {error}") from None
    return value


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"the name {twice[:_SHOWN]!r} occurs twice in one object")
    return found


def read(kind: type[T], value: object) -> T:
    """``value`` (plain JSON values) as ``kind``. Raises ``InvalidInput`` that lists every fault with its place, or the
    first ``MAX_FAULTS`` and perhaps a few more."""
    faults: list[Fault] = []
    result = _read(kind, value, "", faults)
    refuse(faults)
    return cast(T, result)


def read_json(kind: type[T], body: bytes) -> T:
    """As ``read``, from a JSON text. Fields of type ``Raw`` get the bytes as they stand there.

    Raises ``InvalidJson`` too.
    """
    value = parse_json(body)
    return read(
        kind, _with_raw(kind, cast("dict[str, object]", value), body) if isinstance(value, dict) else value
    )


def _with_raw(kind: type[Any], members: dict[str, object], body: bytes) -> dict[str, object]:
    known = _fields(kind) if issubclass(kind, Struct) else {}
    raw = {name for name, info in known.items() if Raw in _options(info.type)} & members.keys()
    texts = msgspec.json.decode(body, type=dict[str, Raw]) if raw else {}
    return members | {
        name: texts[name] for name in raw if members[name] is not None or not _nullable(known[name])
    }


def _nullable(info: FieldInfo) -> bool:
    return NoneType in _options(info.type)


def read_texts(kind: type[T], pairs: Iterable[tuple[str, str]]) -> T:
    """As ``read``, from the parameters of a query string; lists are written with commas between."""
    values: dict[str, object] = {}
    faults: list[Fault] = []
    known = _fields(cast("type[Struct]", kind))
    for name, text in pairs:
        if name in values:
            faults.append(Fault(name[:_SHOWN], "is given twice"))
        several = name in known and _argument(known[name].type, tuple, 0) is not None
        values[name] = [part for part in text.split(",") if part] if several else text
    result = _read(kind, values, "", faults, strict=False)
    refuse(faults)
    return cast(T, result)


def refuse(faults: Iterable[Fault]) -> None:
    """Raise ``InvalidInput`` if there are any faults."""
    found = list(faults)
    if not found:
        return
    first = f"{found[0].field}: {found[0].message}" if found[0].field else found[0].message
    raise InvalidInput(first if len(found) == 1 else f"{first} (and {len(found) - 1} more)", found)


def unknown(name: str, known: Iterable[str]) -> str:
    """What to say about a name that is not known, with the nearest one that is."""
    candidates = sorted(known)
    near = difflib.get_close_matches(name[:_SHOWN].lower(), candidates, n=1, cutoff=0.6)
    if near:
        return f"is not known; did you mean {near[0]!r}?"
    return "is not known" + (f"; known are {', '.join(candidates)}" if 0 < len(candidates) <= 12 else "")


def unknown_names(
    names: Iterable[str], known: Collection[str], where: str = "", most: int = MAX_FAULTS
) -> list[Fault]:
    """A fault for each of the ``names`` that is not known; for the first ``most`` of them."""
    strangers = islice((name for name in names if name not in known), most)
    return [Fault(_join(where, name), unknown(name, known)) for name in strangers]


def _read(kind: Any, value: object, where: str, faults: list[Fault], *, strict: bool = True) -> object:
    if len(faults) >= MAX_FAULTS:
        return None
    if isinstance(value, Raw):
        return value
    if isinstance(value, dict):
        mapping = cast("dict[str, object]", value)
        if struct := _struct_in(kind):
            return _read_struct(struct, mapping, where, faults, strict=strict)
        if of := _argument(kind, dict, 1):
            return {name: _read(of, item, _join(where, name), faults) for name, item in mapping.items()}
    if isinstance(value, list):
        items = cast("list[object]", value)
        if of := _argument(kind, tuple, 0):
            return tuple(_read(of, item, f"{where}[{n}]", faults) for n, item in enumerate(items))
        if of := _argument(kind, list, 0):
            return [_read(of, item, f"{where}[{n}]", faults) for n, item in enumerate(items)]
    return _convert(kind, cast("object", value), where, faults, strict=strict)


def _convert(kind: Any, value: object, where: str, faults: list[Fault], *, strict: bool) -> object:
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        faults.append(Fault(where, _say(kind, value, error)))
        return None


def _read_struct(
    kind: type[Struct], value: Mapping[str, object], where: str, faults: list[Fault], *, strict: bool
) -> Struct | None:
    known = _fields(kind)
    before = len(faults)
    faults += unknown_names(value, known, where, MAX_FAULTS - before)
    arguments: dict[str, Any] = {}
    for name, info in known.items():
        if name in value:
            arguments[info.name] = _read(info.type, value[name], _join(where, name), faults, strict=strict)
        elif info.required:
            faults.append(Fault(_join(where, name), "is required"))
    return kind(**arguments) if len(faults) == before else None


@lru_cache(maxsize=256)
def _fields(kind: type[Struct]) -> dict[str, FieldInfo]:
    return {info.encode_name: info for info in fields(kind)}


def _options(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _struct_in(kind: Any) -> type[Struct] | None:
    for option in _options(kind):
        if isinstance(option, type) and issubclass(option, Struct):
            return option
    return None


def _argument(kind: Any, container: type, index: int) -> Any:
    """The item type of the one option of ``kind`` that is such a container, else None."""
    for option in _options(kind):
        if get_origin(option) is container:
            return get_args(option)[index]
    return None


def _say(kind: Any, value: object, error: msgspec.ValidationError) -> str:
    choices = [choice for option in _options(kind) for choice in _choices(option)]
    if choices and isinstance(value, str):
        return f"must be one of {', '.join(choices)}"
    text = str(error).partition(" - at `")[0]
    return text[:1].lower() + text[1:]


def _choices(option: Any) -> list[str]:
    if isinstance(option, type) and issubclass(option, Enum):
        return [str(member.value) for member in option]
    if get_origin(option) is Literal:
        return [str(choice) for choice in get_args(option)]
    return []


def _join(where: str, name: str) -> str:
    return f"{where}.{name[:_SHOWN]}" if where else name[:_SHOWN]


def given(value: T | UnsetType, default: T) -> T:
    """The value if the caller sent one, else ``default``."""
    return default if value is UNSET else cast(T, value)
