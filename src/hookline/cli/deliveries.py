"""Looking at deliveries and attempts, and sending again."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from hookline.cli import given
from hookline.cli.client import path
from hookline.cli.target import Target

COLUMNS = {
    "id": "id",
    "state": "state",
    "attempts": "attempts",
    "status": "status",
    "error": "error",
    "event": "event",
    "type": "type",
    "sequence": "sequence",
    "received": "received_at",
    "due": "due_at",
}
ATTEMPT_COLUMNS = {
    "id": "id",
    "status": "status",
    "error": "error",
    "total us": "timings.total_us",
    "started": "started_at",
    "address": "address",
    "detail": "detail",
}

deliveries = App(name="deliveries")
attempts = App(name="attempts")


@deliveries.command(name="list")
def list_deliveries(
    subscription: str,
    /,
    *,
    state: tuple[str, ...] = (),
    from_: Annotated[str, Parameter(name="--from")] = "",
    to_: Annotated[str, Parameter(name="--to")] = "",
    limit: int = 50,
    to: Target = Target(),
) -> None:
    """List the deliveries of a subscription, newest first.

    Parameters
    ----------
    state
        Only those in this state: pending, retrying, succeeded, failed or expired; may be repeated.
    from_
        Only for events received since then (a time, or 2h for two hours ago).
    to_
        Only for events received before then.
    limit
        How many at most; 0 for all.
    """
    query = given.kept(**{"state": ",".join(state), "from": given.time(from_), "to": given.time(to_)})
    to.list(path("subscriptions", subscription, "deliveries"), COLUMNS, query, limit)


@deliveries.command
def show(id: str, /, *, to: Target = Target()) -> None:
    """Show a delivery."""
    to.show(to.api.get(path("deliveries", id)))


@deliveries.command
def resend(id: str, /, *, to: Target = Target()) -> None:
    """Send a delivery again, at once and with a fresh retry schedule."""
    to.show(to.api.send("POST", path("deliveries", id, "resend")))


@attempts.command(name="list")
def list_attempts(delivery: str, /, *, to: Target = Target()) -> None:
    """List the attempts of a delivery, oldest first."""
    answer = to.api.get(path("deliveries", delivery))
    to.show_all(answer["attempt_log"], ATTEMPT_COLUMNS)


@attempts.command(name="show")
def show_attempt(id: str, /, *, to: Target = Target()) -> None:
    """Show an attempt with its request and answer."""
    to.show(to.api.get(path("attempts", id)))
