"""``benchmarks/run``: what an event costs, beside the floor; how fast it arrives; how cost and memory grow.

CPU time is user and system time of all our processes, all threads, from the kernel's own accounts, divided by the
events that were accepted, delivered and recorded. The floor is measured in the same run, in turns with ours. The
receiver and the load generator run outside our processes, on the same machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import grow, intake, nodes
from benchmarks.figures import Figures, save
from benchmarks.measure import accept_floor, arrivals, machine, saturate, send_floor
from benchmarks.processes import receiver, server


def throughput(folder: Path, options: argparse.Namespace) -> None:
    """Ours beside the floor, in turns."""
    seconds, rounds = (3, 1) if options.quick else (8, 3)
    accepts: list[float] = []
    sends: list[float] = []
    ours: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    with receiver(folder) as port:
        for number in range(rounds):
            accepts.append(accept_floor(seconds))
            sends.append(send_floor(port, 8_000 * seconds))
            for split in (True, False):
                data = folder / f"data-{split}-{number}"
                with server(data, split=split) as target:
                    target.create_tenant()
                    target.subscribe(f"http://127.0.0.1:{port}/")
                    saturate(target, 2)
                    ours[split].append(saturate(target, seconds))
    accept, send = statistics.median(accepts), statistics.median(sends)
    print(
        f"floor: accept {accept:.1f} us + sign and send {send:.1f} us = {accept + send:.1f} us CPU per event"
    )
    for split, name in ((True, "two processes"), (False, "one process")):
        cost = statistics.median(row[1] for row in ours[split])
        rate = statistics.median(row[2] for row in ours[split])
        print(
            f"{name}: {cost:.1f} us CPU per event, {rate:,.0f} events/s accepted, delivered and recorded; "
            f"floor/ours {(accept + send) / cost:.2f}"
        )


def latency(folder: Path, options: argparse.Namespace) -> None:
    """From publishing to receipt, at half of what the machine carries."""
    seconds, rate = (4, 1000) if options.quick else (15, options.rate)
    print(f"latency: {arrivals(folder, seconds, rate)}")


PARTS: dict[str, Callable[[Path, argparse.Namespace], Figures | None]] = {
    "throughput": throughput,
    "latency": latency,
    "fanout": grow.fanout,
    "subscriptions": grow.subscriptions,
    "log": grow.log,
    "backlog": grow.backlog,
    "postgres": nodes.postgres,
    "bus": intake.from_bus,
    "outbox": intake.from_outbox,
}


def main() -> None:
    """Run the parts named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which parts; default: all")
    parser.add_argument("--quick", action="store_true", help="small counts, for a look")
    parser.add_argument("--rate", type=int, default=3000, help="events a second for the latency part")
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="FILE",
        help="put what postgres, bus and outbox measure into this file",
    )
    options = parser.parse_args()
    print(machine(), flush=True)
    for name in options.parts or PARTS:
        with tempfile.TemporaryDirectory(prefix="hookline-bench-") as folder:
            found = PARTS[name](Path(folder), options)
        if found is not None:
            found.machine, found.quick = machine(), options.quick
            found.taken = f"{datetime.now(UTC):%Y-%m-%d}"
            save(options.figures, found)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
