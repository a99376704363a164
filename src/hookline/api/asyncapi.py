"""The AsyncAPI 3.0 document: what Hookline sends to the subscribers of a tenant."""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET

from hookline import __version__
from hookline.api.messages import Message, Messages

Json = dict[str, Any]

VERSION: Final = "3.0.0"
_HEADERS: Final = "Delivery"

INTRODUCTION: Final = """\
Webhooks: each subscription is an HTTP endpoint that gets the event types it names, as requests in the form of the
profile “{profile}”, unless it chooses another. Delivery is at least once: the same event may arrive twice."""


def document(described: Messages) -> Json:
    """The whole document. The messages must be described in draft 7."""
    tenant, messages = described.tenant, described.messages
    groups = dict.fromkeys(message.type.group for message in messages if message.type.group)
    return {
        "asyncapi": VERSION,
        "info": {
            "title": f"Webhooks of {tenant.name}" if tenant is not None else "Hookline",
            "version": __version__,
            "description": INTRODUCTION.format(profile=described.profile.title),
            "tags": [{"name": group} for group in groups],
        },
        "defaultContentType": described.content_type,
        "channels": {message.key: _channel(message) for message in messages},
        "operations": {message.key: _operation(message) for message in messages},
        "components": {
            "messages": {message.key: _message(message) for message in messages},
            "messageTraits": {_HEADERS: {"headers": _headers(described.headers)}},
            "schemas": described.schemas,
        },
    }


def _channel(message: Message) -> Json:
    return {
        "address": None,  # each subscriber's own
        "title": message.type.name,
        "messages": {message.key: {"$ref": f"#/components/messages/{message.key}"}},
    }


def _operation(message: Message) -> Json:
    channel = f"#/channels/{message.key}"
    return {
        "action": "send",
        "title": message.type.name,
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{message.key}"}],
        "bindings": {"http": {"method": "POST", "bindingVersion": "0.3.0"}},
    }


def _message(message: Message) -> Json:
    made: Json = {
        "name": message.type.name,
        "title": message.type.name,
        "description": message.text,
        "traits": [{"$ref": f"#/components/messageTraits/{_HEADERS}"}],
        "payload": {"allOf": [message.body], "deprecated": True} if message.deprecated else message.body,
    }
    if message.type.group:
        made["tags"] = [{"name": message.type.group}]
    if message.example is not UNSET:
        made["examples"] = [{"payload": message.example}]
    return made


def _headers(headers: dict[str, str]) -> Json:
    return {
        "type": "object",
        "properties": {name: {"type": "string", "description": text} for name, text in headers.items()},
    }
