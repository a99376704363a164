"""JSON Schemas of event types: compiled offline and bounded, to check payloads and changes of the schema."""

from __future__ import annotations

from hookline.core.schema.compatibility import breaking_changes
from hookline.core.schema.compiled import MAX_FAULTS, Schema, compile_schema
from hookline.core.schema.tree import MAX_BYTES, deeper_than

__all__ = ["MAX_BYTES", "MAX_FAULTS", "Schema", "breaking_changes", "compile_schema", "deeper_than"]
