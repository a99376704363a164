"""``python -m tests.simulation --seed 7 --hours 5``: one scenario, or with ``--count`` many from a seed on."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.scenario import SimulationFailed, simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds")
    parser.add_argument(
        "--hours", type=float, help="virtual hours of faults in each (default: from the seed)"
    )
    parser.add_argument("--trace", type=int, default=60, help="entries of the trace shown on failure")
    options = parser.parse_args()
    begin, hours = time.process_time(), 0.0
    for seed in range(options.seed, options.seed + options.count):
        started = time.process_time()
        try:
            report = simulate(seed, options.hours, options.trace)
        except SimulationFailed as failure:
            sys.stdout.write(f"{failure}\n")
            return 1
        hours += report.hours
        spent = time.process_time() - started
        sys.stdout.write(
            f"seed {seed:>6}  {report.kind:<5} {report.hours:8.2f} h  {spent:6.2f} s  {report.digest[:12]}  "
            + ", ".join(f"{name} {count}" for name, count in sorted(report.counts.items()))
            + "\n"
        )
    sys.stdout.write(f"{hours:.1f} virtual hours in {time.process_time() - begin:.1f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
