"""``python -m hookline.verify``: verify a stored webhook request."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from hookline.verify.platforms import (
    Signed,
    verify_avvyr,
    verify_evolutionx,
    verify_shipstream,
    verify_shopify,
    verify_stripe,
)
from hookline.verify.request import TOLERANCE, VerificationError
from hookline.verify.standard import verify

_SECRET: Final = "HOOKLINE_WEBHOOK_SECRET"  # noqa: S105 - a name

_PLATFORMS: Final[Mapping[str, Callable[[bytes, Mapping[str, str], Sequence[str], float], Signed]]] = {
    "avvyr": lambda body, headers, secrets, tolerance: verify_avvyr(body, headers, secrets),
    "evolutionx": lambda body, headers, secrets, tolerance: verify_evolutionx(
        body, headers, secrets, tolerance=tolerance
    ),
    "shipstream": lambda body, headers, secrets, tolerance: verify_shipstream(body, headers, secrets),
    "shopify": lambda body, headers, secrets, tolerance: verify_shopify(body, headers, secrets),
    "stripe": lambda body, headers, secrets, tolerance: verify_stripe(
        body, headers, secrets, tolerance=tolerance
    ),
}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m hookline.verify",
        description="Verify a stored webhook request. Exit code 0: verified, 1: not, 2: cannot be read.",
    )
    parser.add_argument(
        "--scheme",
        choices=("standard", *_PLATFORMS),
        default="standard",
        help="whose form the signature has; default: standard (Standard Webhooks)",
    )
    parser.add_argument(
        "--secret",
        action="append",
        metavar="SECRET",
        help=f"may be repeated; without it, {_SECRET} is read (other users cannot see that one), one secret a line",
    )
    parser.add_argument("--headers", required=True, metavar="FILE", help="lines of the form name: value")
    parser.add_argument("--body", required=True, metavar="FILE", help="the exact body; - reads stdin")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, metavar="SECONDS", help="default: 300")
    parser.add_argument("--any-time", action="store_true", help="accept a request of any age")
    return parser.parse_args(argv)


def _secrets(options: argparse.Namespace) -> list[str]:
    """From the options or the environment; a platform's secret is any text, which may have spaces in it."""
    given: list[str] = options.secret or []
    text = os.environ.get(_SECRET, "")
    return given or (text.split() if options.scheme == "standard" else list(filter(None, text.splitlines())))


def _read_headers(path: str) -> dict[str, str]:
    """Header lines; a request or status line (which has no colon before its first space) is passed over.

    A name that comes again adds to its value, as HTTP has it: nothing is verified that a server would see otherwise.
    """
    headers: dict[str, str] = {}
    for line in Path(path).read_text("latin-1").splitlines():
        name, colon, value = line.partition(":")
        if colon and name and " " not in name:
            before = f"{headers[name.lower()]}, " if name.lower() in headers else ""
            headers[name.lower()] = before + value.strip()
    return headers


def _verified(options: argparse.Namespace, body: bytes, headers: Mapping[str, str]) -> str:
    """What the signature vouches for, in words."""
    tolerance: float = math.inf if options.any_time else options.tolerance
    if options.scheme == "standard":
        verified = verify(body, headers, _secrets(options), tolerance=tolerance)
        return f"id {verified.id}, timestamp {verified.timestamp}"
    signed = _PLATFORMS[options.scheme](body, headers, _secrets(options), tolerance)
    return "the body (no time is signed)" if signed.timestamp is None else f"timestamp {signed.timestamp}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _arguments(argv)
    try:
        headers = _read_headers(options.headers)
        body = sys.stdin.buffer.read() if options.body == "-" else Path(options.body).read_bytes()
    except OSError as error:
        print(f"cannot read {error.filename}: {error.strerror}", file=sys.stderr)  # noqa: T201 - a command
        return 2
    try:
        verified = _verified(options, body, headers)
    except VerificationError as error:
        print(f"not verified: {error} ({error.code})", file=sys.stderr)  # noqa: T201 - a command
        return 1
    print(f"verified: {verified}")  # noqa: T201 - a command
    return 0


if __name__ == "__main__":
    sys.exit(main())
