"""The one error tree. Each class has its stable code, HTTP status and public text.

``faults`` lists everything that is wrong with the input, each with the place of the fault, so that a
caller can mend all of it at once. Edges turn any ``HooklineError`` into an RFC 9457 problem.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct


class Fault(Struct, frozen=True):
    """One thing that is wrong: where (``retry.delays[2]``), what, and how to mend it."""

    field: str
    message: str


class HooklineError(Exception):
    """Base of all errors that a caller can be told about."""

    code = "internal_error"
    status = 500
    title = "Something went wrong on our side"

    def __init__(self, detail: str = "", faults: Sequence[Fault] = ()) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.faults = tuple(faults)


class InvalidInput(HooklineError):
    """The input breaks a rule; ``faults`` names each place."""

    code = "invalid_input"
    status = 422
    title = "The input is not valid"


class InvalidJson(HooklineError):
    """The body is not the JSON it should be."""

    code = "invalid_json"
    status = 400
    title = "The body is not valid JSON"


class SchemaViolation(HooklineError):
    """A payload does not fit the schema of its event type, and the tenant's mode is strict."""

    code = "schema_violation"
    status = 422
    title = "The payload does not fit the schema of its event type"


class IncompatibleSchema(HooklineError):
    """A schema change could break receivers and was not forced."""

    code = "incompatible_schema"
    status = 409
    title = "The new schema could break receivers"


class Unauthorized(HooklineError):
    """No key, or a key that is unknown or revoked."""

    code = "unauthorized"
    status = 401
    title = "A valid API key is needed"


class Forbidden(HooklineError):
    """The key is good, but its scopes do not cover this."""

    code = "forbidden"
    status = 403
    title = "This API key may not do that"


class NotFound(HooklineError):
    """There is no such thing, or it belongs to another tenant."""

    code = "not_found"
    status = 404
    title = "There is no such thing"


class Conflict(HooklineError):
    """The thing exists already, or is in a state that rules the request out."""

    code = "conflict"
    status = 409
    title = "The request does not fit the present state"


class Overtaken(Conflict):
    """Somebody else changed the thing between reading and writing it. Reading it again may help."""


class IdConflict(Conflict):
    """An event with this id exists and its content differs."""

    code = "event_id_conflict"
    title = "Another event has this id"


class TooLarge(HooklineError):
    """A body, batch or field is over its limit."""

    code = "too_large"
    status = 413
    title = "The request is larger than the limit"


class AddressRefused(InvalidInput):
    """The target URL or the address behind it is not one we may call."""

    code = "address_refused"
    title = "This address may not be called"


class Overloaded(HooklineError):
    """A bounded queue is full; the event was not stored. Try again after ``retry_after`` seconds."""

    code = "overloaded"
    status = 503
    title = "Too much is waiting; try again shortly"
    retry_after = 1


class StorageUnavailable(HooklineError):
    """The storage did not answer; nothing was stored."""

    code = "storage_unavailable"
    status = 503
    title = "The storage is not available; nothing was stored"
    retry_after = 2


class CommitUnknown(StorageUnavailable):
    """The storage did not answer a commit: nobody knows whether it happened."""

    code = "commit_unknown"
    title = "It is not known whether this was stored; send it again, an event under the same id"


class Fenced(HooklineError):
    """Another owner holds the shard now: this one must write nothing more."""

    code = "fenced"
    status = 409
    title = "Another worker owns this shard"


class TokenRefused(HooklineError):
    """The subscription's OAuth2 token endpoint gave no access token."""

    code = "token_refused"
    status = 502
    title = "The token endpoint gave no access token"


class SettingsInvalid(HooklineError):
    """A setting from the environment or the TOML file is not usable."""

    code = "settings_invalid"
    title = "A setting is not valid"
