"""The engine keeps its promises in random worlds, the same seed is the same world, and planted bugs are found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.mutants import BUGS, Bug, cursor_before_outcome, watermark_ignores_holds
from tests.simulation.scenario import SimulationFailed, simulate

ROOT = Path(__file__).parents[2]
GROUPS = 6
SEEDS = 10
"""In each group; a scenario takes about half a second of CPU time."""
FIRST_SEED = 1_000_000
"""The worlds of an ordinary run, the same for every change; ``SIMULATION_SEED`` picks others."""
ENOUGH = 60
"""Seeds within which each planted bug must be found."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("group", range(GROUPS))
def test_promises_hold_in_random_worlds(group: int, capsys: pytest.CaptureFixture[str]):
    first = int(os.environ.get("SIMULATION_SEED", FIRST_SEED)) + group * SEEDS
    reports = [simulate(seed) for seed in range(first, first + SEEDS)]
    hours = sum(report.hours for report in reports)
    events = sum(report.counts["events"] for report in reports)
    with capsys.disabled():
        sys.stdout.write(
            f"\nsimulation: seeds {first} to {first + SEEDS - 1}, {hours:.0f} virtual hours, {events} events "
        )
    assert events > 0
    assert hours > 1


def test_one_seed_is_one_world():
    """In processes of their own: no order of a set, no address and no other test may leak in."""
    digests = {_digest_in_new_process(hash_seed) for hash_seed in ("1", "2")}
    assert digests == {simulate(4).digest, simulate(4).digest}
    assert digests != {simulate(5).digest}


def _digest_in_new_process(hash_seed: str) -> str:
    code = "from tests.simulation.scenario import simulate; print(simulate(4).digest)"
    environment = os.environ | {
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True, timeout=300)
    return done.stdout.strip()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_planted_bug_is_found(bug: Bug):
    with bug(), pytest.raises(SimulationFailed, match=r"seed \d+ .*: ") as failure:
        _simulate_all(range(1, ENOUGH + 1))
    assert "BROKEN" in str(failure.value)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "bug", [cursor_before_outcome, watermark_ignores_holds], ids=lambda bug: bug.__name__
)
def test_lost_events_are_missed_even_without_a_look_at_cursors(bug: Bug):
    with bug(), pytest.raises(SimulationFailed, match=r"sequences|order \w+:|everything comes to its end"):
        _simulate_all(range(1, ENOUGH + 1), from_outside=True)


def _simulate_all(seeds: range, *, from_outside: bool = False) -> None:
    for seed in seeds:
        simulate(seed, from_outside=from_outside)
