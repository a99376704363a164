"""What every event type must fulfil, whether it comes by API or from a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from hookline.core.definition import text_faults
from hookline.core.errors import Fault, HooklineError
from hookline.core.matching import name_fault
from hookline.core.model import OPERATIONAL_PREFIX
from hookline.core.schema import compile_schema, deeper_than

MAX_EXAMPLE = 256 * 1024
"""Bytes of an example; as much as a schema may have."""
MAX_EXAMPLE_DEPTH = 64
"""Lists and objects in one another. The exports put an example some levels down into documents of their own, which have
to stay within what JSON readers follow: some follow 128 levels."""
MAX_TEXT = 4000
MAX_GROUP = 200


def event_type_faults(
    name: str, texts: Mapping[str, str], schema: bytes | None, example: bytes | None
) -> Iterator[Fault]:
    """Everything that is wrong with a type. ``texts`` are its other fields; ``schema`` and ``example`` are JSON."""
    if message := name_fault(name):
        yield Fault("name", message)
    if name.startswith(OPERATIONAL_PREFIX):
        yield Fault("name", f"names that begin with {OPERATIONAL_PREFIX!r} are Hookline's own")
    for field, text in texts.items():
        longest = MAX_TEXT if field in ("description", "usage") else MAX_GROUP
        yield from text_faults(field, text.replace("\n", " ").replace("\t", " "), longest)
    yield from _document_faults(schema, example)


def _document_faults(schema: bytes | None, example: bytes | None) -> Iterator[Fault]:
    if example is not None and len(example) > MAX_EXAMPLE:
        yield Fault("example", f"must have at most {MAX_EXAMPLE} bytes")
        return
    value: object = None if example is None else msgspec.json.decode(example)
    if deeper_than(value, MAX_EXAMPLE_DEPTH):
        yield Fault("example", f"is nested more than {MAX_EXAMPLE_DEPTH} deep")
        return
    if schema is None:
        return
    try:
        compiled = compile_schema(schema)
    except HooklineError as error:
        yield from error.faults or (Fault("schema", error.detail),)
        return
    if example is not None:
        for fault in compiled.faults(value, example):
            yield Fault(f"example{fault.field.removeprefix('data')}", fault.message)
