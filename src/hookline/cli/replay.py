"""Sending a stretch of the log again."""

from __future__ import annotations

import time
from typing import Annotated, Any

from cyclopts import App, Parameter

from hookline.cli import EXIT_FAILED, given
from hookline.cli.client import path
from hookline.cli.failures import Usage
from hookline.cli.output import note
from hookline.cli.progress import Progress
from hookline.cli.target import Target

LOOK_SECONDS = 0.5
"""Between two looks at a running job."""

COLUMNS = {
    "id": "id",
    "state": "state",
    "done": "done",
    "total": "total",
    "states": "states",
    "rate": "rate",
    "created": "created_at",
}

_ABOUT = (
    "It shows the progress and waits for the end. Ctrl-C stops the looking, `hookline replay cancel` the job."
)

replay = App(name="replay", help_epilogue=_ABOUT, help_format="markdown")


@replay.default
def start(
    subscription: str = "",
    /,
    *,
    from_: Annotated[str, Parameter(name="--from")] = "",
    to_: Annotated[str, Parameter(name="--to")] = "",
    state: tuple[str, ...] = (),
    rate: float = 0,
    dry_run: bool = False,
    no_wait: bool = False,
    to: Target = Target(),
) -> int:
    """Send the deliveries of a subscription again, for events received in a stretch of time.

    Parameters
    ----------
    from_
        The beginning: a time, 2h for two hours ago, or beginning.
    to_
        The end. Default: now.
    state
        Only deliveries that ended so: failed, expired, succeeded; may be repeated. Default: all of them.
    rate
        At most so many a second. Default: as fast as the subscription allows.
    dry_run
        Only count them.
    no_wait
        Return once the job has started.
    """
    if not subscription or not from_:
        raise Usage("a replay needs a SUBSCRIPTION and --from")
    span = {"from": given.time(from_), "to": given.time(to_)}
    body = given.kept(**span, state=list(state), rate=rate or None, dry_run=dry_run)
    job = to.api.send("POST", path("subscriptions", subscription, "replay"), body)
    if not dry_run and not no_wait:
        job = _watch(job, to)
    if to.json:
        to.show(job)
    else:
        to.done(_summary(job, dry_run=dry_run))
    return EXIT_FAILED if job["state"] == "cancelled" else 0


def _watch(job: dict[str, Any], to: Target) -> dict[str, Any]:
    if not to.json:
        note(f"replay {job['id']}")
    with Progress("replaying", job["total"], quiet=to.json) as progress:
        while job["state"] == "running":
            time.sleep(LOOK_SECONDS)
            job = to.api.get(path("replays", job["id"]))
            progress.reach(job["done"], job["total"])
    return job


def _summary(job: dict[str, Any], *, dry_run: bool) -> str:
    if dry_run:
        return f"{job['total']} {'delivery' if job['total'] == 1 else 'deliveries'} would be sent again"
    return f"replay {job['id']} is {job['state']}: {job['done']} of {job['total']} deliveries were put back"


@replay.command(name="list")
def list_replays(subscription: str, /, *, to: Target = Target()) -> None:
    """List the replays of a subscription, newest first."""
    to.list(path("subscriptions", subscription, "replays"), COLUMNS)


@replay.command
def show(id: str, /, *, to: Target = Target()) -> None:
    """Show how far a replay is."""
    to.show(to.api.get(path("replays", id)))


@replay.command
def cancel(id: str, /, *, to: Target = Target()) -> None:
    """Stop a replay; what it has put back already is still sent."""
    to.show(to.api.send("POST", path("replays", id, "cancel")))
