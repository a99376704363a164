"""Errors as RFC 9457 problem details: one shape on all routes."""

from __future__ import annotations

import msgspec

from hookline.api.wire import Problem
from hookline.core.errors import HooklineError, Overloaded, StorageUnavailable, Unauthorized

Header = tuple[bytes, bytes]
Headers = list[Header]

TYPE_BASE = "urn:hookline:error:"
"""A problem's type; docs/reference/errors.md describes each under its code."""


class MethodNotAllowed(HooklineError):
    """The path exists, but not with this method; ``Allow`` names those it has."""

    code = "method_not_allowed"
    status = 405
    title = "This path has no such method"

    def __init__(self, allowed: list[str]) -> None:
        super().__init__(f"use {', '.join(allowed)}")
        self.allowed = allowed


class UnsupportedMediaType(HooklineError):
    """The Content-Type is not one that this route reads."""

    code = "unsupported_media_type"
    status = 415
    title = "The content type is not one that is understood here"


class RequestTimeout(HooklineError):
    """The body did not arrive in time."""

    code = "request_timeout"
    status = 408
    title = "The request took too long to arrive"


class NotReady(HooklineError):
    """A part of this process cannot do its work now."""

    code = "not_ready"
    status = 503
    title = "The process is not ready"


def problem(error: HooklineError, request_id: str) -> Problem:
    """The error as the wire shows it."""
    return Problem(
        type=TYPE_BASE + error.code,
        title=error.title,
        status=error.status,
        code=error.code,
        detail=error.detail,
        request_id=request_id,
        faults=list(error.faults),
    )


def problem_headers(error: HooklineError) -> Headers:
    """The headers that belong to the error, beside the content type."""
    if isinstance(error, Unauthorized):
        return [(b"www-authenticate", b'Bearer realm="hookline"')]
    if isinstance(error, MethodNotAllowed):
        return [(b"allow", ", ".join(error.allowed).encode())]
    if isinstance(error, (Overloaded, StorageUnavailable)):
        return [(b"retry-after", str(error.retry_after).encode())]
    return []


def encode_problem(error: HooklineError, request_id: str) -> tuple[int, Headers, bytes]:
    """Status, headers and body of the answer."""
    headers = [(b"content-type", b"application/problem+json"), *problem_headers(error)]
    return error.status, headers, msgspec.json.encode(problem(error, request_id))
