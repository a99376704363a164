"""JSON Schemas of event types: compiled offline, bounded, and used to check payloads.

A schema comes from a tenant and runs inside the publish path of all tenants, so a schema that could make one
payload expensive is refused when it is stored: remote references, patterns with backtracking, too many
subschemas for one place of a payload. What is left runs in linear time, and a payload that could still take long with
its schema (``cost``) is not given to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Final, final

import jsonschema_rs
import msgspec

from hookline.core.errors import Fault, InvalidInput
from hookline.core.schema.cost import MAX_STEPS, Cost, cost_of
from hookline.core.schema.tree import MAX_RECURSION, SchemaTree, deeper_than, load, place, refuse

MAX_FAULTS: Final = 20
MAX_PATTERNS: Final = 200
_MAX_MESSAGE: Final = 200

_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=256 * 1024, dfa_size_limit=1024 * 1024)
"""The engine without backtracking: each pattern is linear in the text, and none can look around or back."""


@final
class Schema:
    """A compiled schema. Made by ``compile_schema``."""

    __slots__ = ("_cost", "_recursive", "_validator")

    def __init__(self, validator: jsonschema_rs.Validator, cost: Cost, recursive: bool) -> None:
        self._validator = validator
        self._cost = cost
        self._recursive = recursive

    def faults(self, data: object, text: bytes = b"") -> list[Fault]:
        """What in a decoded payload breaks the schema, at most ``MAX_FAULTS``, of a large one only the first; empty if
        it fits. ``text`` is the JSON that it came as, and needed of what others sent: it tells how long this may take.

        Places are like ``data.lines[2].qty``. Fractions may be floats or Decimals.
        """
        if (steps := self._cost.steps(text)) > MAX_STEPS:
            return [Fault("data", _too_much(steps))]
        if self._recursive and deeper_than(data, MAX_RECURSION):
            return [
                Fault("data", f"is nested more than {MAX_RECURSION} deep, the limit for a recursive schema")
            ]
        if self._validator.is_valid(data):
            return []
        if self._cost.can_name_all(text):
            return [_fault(error) for error in islice(self._validator.iter_errors(data), MAX_FAULTS)]
        return [Fault("data", _SOMEWHERE) if self._cost.context else self._first(data)]

    def _first(self, data: object) -> Fault:
        try:
            self._validator.validate(data)
        except jsonschema_rs.ValidationError as error:
            return _fault(error)
        return Fault("data", _SOMEWHERE)


def compile_schema(raw: bytes) -> Schema:
    """Check and compile a JSON Schema (draft 2020-12, or what its ``$schema`` names).

    Raises ``InvalidInput`` whose faults have places such as ``schema.properties.total``.
    """
    document = load(raw)
    tree = SchemaTree(document)
    faults = [*tree.faults(), *_pattern_faults(tree)]
    if faults:
        raise InvalidInput("The JSON Schema cannot be used", faults[:MAX_FAULTS])
    try:
        validator = jsonschema_rs.validator_for(document, offline=True, pattern_options=_PATTERNS)
    except jsonschema_rs.ValidationError as error:
        refuse(place("schema", error.instance_path), _explain(error))
    except (ValueError, RecursionError) as error:
        refuse("schema", str(error)[:_MAX_MESSAGE])
    return Schema(validator, cost_of(tree), tree.recursive)


_SOMEWHERE: Final = "does not fit the schema; the place is not looked for in so large a payload"


def _too_much(steps: int) -> str:
    return (
        f"could take {steps} steps to check against this schema, at most {MAX_STEPS} are allowed: send less in one "
        "event, or use fewer alternatives, shorter lists of values and shorter repetitions in patterns"
    )


def _pattern_faults(tree: SchemaTree) -> Iterable[Fault]:
    if tree.patterns > MAX_PATTERNS:
        yield Fault("schema", f"has {tree.patterns} patterns, at most {MAX_PATTERNS} are allowed")


def _explain(error: jsonschema_rs.ValidationError) -> str:
    if error.instance_path and error.instance_path[-1] == "pattern":
        return "is no pattern we can use: without look-around and back-references, and not too large"
    return _short(error.message)


# --- faults of a payload ----------------------------------------------------------------------------

_MISSING_FIELD: Final = re.compile(r'("(?:[^"\\]|\\.)*") is a required property')


def _fault(error: jsonschema_rs.ValidationError) -> Fault:
    missing = _MISSING_FIELD.fullmatch(error.message)
    if missing:
        name = msgspec.json.decode(missing[1], type=str)
        return Fault(place("data", [*error.instance_path, name]), "is missing")
    return Fault(place("data", error.instance_path), _short(error.message))


def _short(message: str) -> str:
    """Messages quote the value they are about, which may be a megabyte."""
    if len(message) <= _MAX_MESSAGE:
        return message
    half = _MAX_MESSAGE // 2
    return f"{message[:half]} … {message[-half:]}"
