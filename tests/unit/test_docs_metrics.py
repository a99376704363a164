"""docs/reference/metrics.md names every metric, and none that there is not."""

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from hookline.engine.dispatch import outcomes
from hookline.observe import RESULTS, Metrics

PAGE = (Path(__file__).parents[2] / "docs/reference/metrics.md").read_text("utf-8")


def exposed() -> set[str]:
    """The names as Prometheus shows them: counters end in _total."""
    from prometheus_client import generate_latest

    families = text_string_to_metric_families(generate_latest(Metrics().registry).decode())
    return {f"{family.name}_total" if family.type == "counter" else family.name for family in families}


def test_every_metric_has_a_row_and_every_row_is_a_metric():
    rows = re.findall(r"^\| `(hookline_\w+)(?:\{result\})?` \| \S", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(exposed())
    assert len(exposed()) > 20


def test_rules_and_texts_use_names_that_exist():
    used = set(re.findall(r"hookline_[a-z_]+", re.sub(r"#hookline_\w+", "", PAGE)))
    assert used - exposed() == set()


def test_every_result_is_explained():
    (row,) = re.findall(r"^\| `hookline_attempts_total\{result\}`.*$", PAGE, re.MULTILINE)
    assert [result for result in RESULTS if f"`{result}`" not in row] == []


def test_operational_events_are_named():
    names = [
        getattr(outcomes, name) for name in vars(outcomes) if name.startswith(("SUBSCRIPTION_", "DELIVERY_"))
    ]
    assert len(names) == 3
    assert sorted(re.findall(r"^\| `(hookline\.[a-z.]+)`", PAGE, re.MULTILINE)) == sorted(names)
