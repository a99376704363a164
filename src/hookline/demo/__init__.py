"""The demo: a day of a shop, published, delivered, verified and counted on both sides.

``hookline demo`` starts a server and, in a process of their own, receivers with all the habits of real ones.
It speaks to both over HTTP only and compares three accounts: its own plan, the receivers' notes, the server's
log.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from hookline.demo.run import Options

T = TypeVar("T", int, float)

EXIT_TERMINATED = 143  # 128 + SIGTERM, as shells have it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; 0 only if nothing was lost, unverified or out of sequence.

    Raises ``KeyboardInterrupt`` after cleaning up, if it is interrupted.
    """
    options = options_of(sys.argv[1:] if argv is None else argv)
    from hookline.demo.client import Refused, Unreachable
    from hookline.demo.processes import ProcessFailed

    code = 1
    try:
        code = asyncio.run(_until_terminated(options))
    except* (ProcessFailed, Refused, Unreachable) as failed:
        for error in _leaves(failed):
            print(f"hookline demo: {error}", file=sys.stderr)
    return code


async def _until_terminated(options: Options) -> int:
    """SIGTERM and a closed terminal end it as Ctrl-C does: with everything cleaned up."""
    from hookline.demo.run import run

    task = asyncio.ensure_future(run(options))
    loop = asyncio.get_running_loop()
    terminated: list[signal.Signals] = []

    def terminate(number: signal.Signals) -> None:
        terminated.append(number)
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, terminate, number)
    try:
        return await task
    except asyncio.CancelledError:
        if terminated:
            return EXIT_TERMINATED
        raise


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def options_of(argv: Sequence[str]) -> Options:
    """What a command line says; ends the process with 2 if it makes no sense."""
    from hookline.demo.run import Options

    given = parser().parse_args(argv)
    return Options(
        events=given.events,
        seed=given.seed,
        seconds=0.0 if given.fast else given.seconds,
        port=given.port,
        keep=given.keep,
        json=given.json,
        live=not given.no_live,
        svg=given.svg,
    )


def parser() -> argparse.ArgumentParser:
    """All options; docs/tutorial/demo.md explains them."""
    parser = argparse.ArgumentParser(
        prog="hookline demo",
        description="A day of a shop through a server of its own: 63 event types of real platforms, eight "
        "receivers that fail, dawdle, limit and go away, and a check of every single delivery.",
    )
    parser.add_argument(
        "--events", type=_within(int, 1, 100_000), default=3000, metavar="N", help="events of the day (3000)"
    )
    parser.add_argument("--seed", type=int, default=7, metavar="N", help="another number, another day (7)")
    parser.add_argument(
        "--seconds",
        type=_within(float, 0, 3600),
        default=25.0,
        metavar="S",
        help="how long the day takes (25)",
    )
    parser.add_argument("--fast", action="store_true", help="publish as fast as the server takes it")
    parser.add_argument(
        "--port", type=_within(int, 0, 65535), default=0, metavar="N", help="port of the server (a free one)"
    )
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print the closing account as JSON")
    parser.add_argument("--no-live", action="store_true", help="plain lines in place of the live table")
    parser.add_argument(
        "--svg", type=_picture, metavar="FILE", help="show nothing, and save a picture of it all"
    )
    return parser


def _within(kind: type[T], least: int, most: int) -> Callable[[str], T]:
    """Reads a number between two bounds."""

    def read(text: str) -> T:
        try:
            number = kind(text)
        except ValueError:
            number = None
        if number is None or not least <= number <= most:
            raise argparse.ArgumentTypeError(f"must be a number from {least} to {most}")
        return number

    return read


def _picture(text: str) -> Path:
    """A file that can be written: to be found out before the day, not after it."""
    file = Path(text)
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written; name a file in a folder that exists")
    return file
