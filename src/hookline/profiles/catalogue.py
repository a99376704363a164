"""Event types from files: the catalogues that are shipped with the profiles, and files that an owner writes.

A file holds the types of one group, with the parts that their schemas share::

    {"group": "Orders", "profile": "shipstream", "$defs": {"money": …}, "types": [
        {"name": …, "description": …, "usage": …, "schema": {…, "$ref": "#/$defs/money"}, "example": {…}}]}

``profile`` limits a file to the tenants of one profile. Each type gets a schema that stands on its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, cast
from urllib.parse import unquote

import msgspec
from msgspec import Raw, Struct, field

from hookline.core.errors import Fault, HooklineError, InvalidInput
from hookline.core.event_type import event_type_faults
from hookline.core.model import EventType, Millis, TypeSource
from hookline.core.reading import parse_json, read, unknown
from hookline.core.schema.tree import SchemaNode, subschemas
from hookline.profiles import PROFILES

MAX_FILE_BYTES: Final = 8 << 20
MAX_TYPES: Final = 1000
"""Types in one file: with the largest schemas, they still fit into memory."""
MAX_FAULTS: Final = 200
"""After so many, the rest of a file is not looked at."""

_NO_TENANT: Final = 0
_DEFS: Final = "#/$defs/"

Types = Mapping[str, EventType]


class TypeFile(Struct, frozen=True):
    """What a file says, for the tenants of ``profile``, or of all profiles if it is empty."""

    profile: str
    types: Types


class _Entry(Struct, frozen=True):
    name: str
    description: str
    usage: str
    schema: Any
    example: Any
    object_type: str = ""
    origin: Literal["", "stated", "choice"] = ""
    deprecated: str = ""
    order: int = 0


class _Document(Struct, frozen=True):
    group: str
    types: tuple[_Entry, ...]
    defs: dict[str, Any] = field(name="$defs", default_factory=dict[str, Any])
    profile: str = ""


class _RawEntry(Struct, frozen=True):
    schema: Raw
    example: Raw


class _RawDocument(Struct, frozen=True):
    """The same text, with the JSON of others as it was written: their numbers keep their digits."""

    types: list[_RawEntry]
    defs: dict[str, Raw] = field(name="$defs", default_factory=dict[str, Raw])


# --- reading a file ------------------------------------------------------------------------------------


def read_types(text: bytes, file: str, source: TypeSource, written_at: Millis) -> TypeFile:
    """The types of a file. Raises ``InvalidInput`` that names the file, with each fault and its place."""
    try:
        return _read(text, source, written_at)
    except HooklineError as error:
        count = len(error.faults)
        detail = error.detail if count < 2 else f"{count} faults"
        raise InvalidInput(f"{file}: {detail}", error.faults) from None


def _read(text: bytes, source: TypeSource, written_at: Millis) -> TypeFile:
    if len(text) > MAX_FILE_BYTES:
        raise InvalidInput(f"a file may have {MAX_FILE_BYTES} bytes")
    document = read(_Document, parse_json(text))
    raw = msgspec.json.decode(text, type=_RawDocument)
    faults = list(_document_faults(document))
    types: dict[str, EventType] = {}
    for index, (entry, written) in enumerate(zip(document.types, raw.types, strict=True)):
        if len(faults) > MAX_FAULTS:
            break
        made = _event_type(document, entry, written, raw.defs, source, written_at)
        found = list(_entry_faults(document, entry, made))
        if entry.name in types:
            found.append(Fault("name", "occurs twice in this file"))
        place = f"types[{index}] ({entry.name[:128]})"
        faults += [Fault(f"{place} {fault.field}", fault.message) for fault in found]
        types[entry.name] = made
    if faults:
        first = f"{faults[0].field}: {faults[0].message}"
        raise InvalidInput(first, faults)
    return TypeFile(document.profile, types)


def _document_faults(document: _Document) -> Iterator[Fault]:
    if document.profile and document.profile not in PROFILES:
        yield Fault("profile", unknown(document.profile, PROFILES))
    if len(document.types) > MAX_TYPES:
        yield Fault("types", f"a file may have {MAX_TYPES} types; this one has {len(document.types)}")


def _entry_faults(document: _Document, entry: _Entry, made: EventType) -> Iterator[Fault]:
    for name in sorted(document.defs.keys() & _members(_members(entry.schema).get("$defs"))):
        yield Fault(f"schema.$defs.{name}", "has the name of a part that the whole file shares")
    texts = {"description": made.description, "group": made.group, "usage": made.usage}
    texts |= {"object_type": made.object_type, "deprecated": entry.deprecated}
    yield from event_type_faults(made.name, texts, made.schema, made.example)


def _members(value: object) -> Mapping[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _event_type(
    document: _Document,
    entry: _Entry,
    raw: _RawEntry,
    defs: Mapping[str, Raw],
    source: TypeSource,
    written_at: Millis,
) -> EventType:
    return EventType(
        tenant_no=_NO_TENANT,
        name=entry.name,
        description=entry.description,
        version=1,
        created_at=written_at,
        updated_at=written_at,
        group=document.group,
        usage=entry.usage,
        schema=_compact(_complete(entry.schema, raw.schema, document.defs, defs)),
        example=_compact(bytes(raw.example)),
        deprecated_at=written_at if entry.deprecated else None,
        source=source,
        object_type=entry.object_type,
        origin=entry.origin,
        deprecation=entry.deprecated,
        order=entry.order,
    )


def _compact(text: bytes) -> bytes:
    return msgspec.json.format(text, indent=-1)


# --- shared parts --------------------------------------------------------------------------------------


def _complete(schema: object, raw: Raw, defs: Mapping[str, object], raw_defs: Mapping[str, Raw]) -> bytes:
    """The schema with a copy of every shared part that it reaches."""
    wanted = _reached(schema, defs)
    if not wanted:
        return bytes(raw)
    members = msgspec.json.decode(raw, type=dict[str, Raw])
    own = msgspec.json.decode(members["$defs"], type=dict[str, Raw]) if "$defs" in members else {}
    shared = {name: raw_defs[name] for name in wanted}
    return msgspec.json.encode(members | {"$defs": own | shared})


def _reached(schema: object, defs: Mapping[str, object]) -> list[str]:
    found: list[str] = []
    waiting = [schema]
    while waiting:
        for name in _names(waiting.pop()):
            if name in defs and name not in found:
                found.append(name)
                waiting.append(defs[name])
    return sorted(found)


def _names(schema: object) -> Iterator[str]:
    """The shared parts that a schema refers to itself."""
    nodes = [cast("SchemaNode", schema)] if isinstance(schema, dict) else []
    while nodes:
        node = nodes.pop()
        reference = node.get("$ref") if isinstance(node, dict) else None
        if isinstance(reference, str) and reference.startswith(_DEFS):
            step = unquote(reference.removeprefix(_DEFS)).partition("/")[0]
            yield step.replace("~1", "/").replace("~0", "~")
        nodes += [child for _, child in subschemas(node)]


# --- what is shipped -----------------------------------------------------------------------------------


@cache
def shipped(profile: str) -> Types:
    """The types that a profile brings, by name; none for an unknown one. Reads files at the first call."""
    if profile not in PROFILES:
        return {}
    types: dict[str, EventType] = {}
    for path in sorted((Path(__file__).parent / profile / "catalogue").glob("*.json")):
        written_at = path.stat().st_mtime_ns // 1_000_000
        found = read_types(path.read_bytes(), path.name, TypeSource.SHIPPED, written_at).types
        if twice := types.keys() & found.keys():
            raise InvalidInput(f"{path.name}: {', '.join(sorted(twice))}: in another file of {profile}, too")
        types |= found
    return types
