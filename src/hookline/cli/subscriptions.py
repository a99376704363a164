"""Standing orders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import App, Parameter

from hookline.cli import EXIT_FAILED, given
from hookline.cli.client import path
from hookline.cli.failures import Usage
from hookline.cli.target import Target

COLUMNS = {
    "id": "id",
    "name": "name",
    "state": "state",
    "url": "url",
    "events": "events",
    "reason": "state_reason",
}

app = App(name="subscriptions")


@Parameter(name="*", group="Subscription")
@dataclass(frozen=True)
class Options:
    """What a subscription asks for, as far as it has an option of its own."""

    event: Annotated[
        tuple[str, ...], Parameter(help="An event type or prefix wildcard (`order:*`, `*`); may be repeated.")
    ] = ()
    name: Annotated[str, Parameter(help="What people call it.")] = ""
    header: Annotated[
        tuple[str, ...], Parameter(help="A header to send, as name=value; may be repeated.")
    ] = ()
    query: Annotated[
        tuple[str, ...], Parameter(help="A query parameter to send, as name=value; may be repeated.")
    ] = ()
    filter: Annotated[str, Parameter(help="Only events whose payload passes this filter.")] = ""
    order: Annotated[str, Parameter(help="Whether deliveries may overtake: none, key or strict.")] = ""
    profile: Annotated[str, Parameter(help="How the requests are written. Default: the tenant's.")] = ""
    sign: Annotated[str, Parameter(help="v1 (HMAC), v1a (Ed25519) or none. Default: v1.")] = ""
    secret: Annotated[str, Parameter(help="The signing secret. Default: one is made.")] = ""
    client_certificate: Annotated[
        given.Source, Parameter(help="A certificate to show to the endpoint: PEM, @path of a file, or -.")
    ] = ""
    client_key: Annotated[given.Source, Parameter(help="Its private key: PEM, @path of a file, or -.")] = ""
    timeout: Annotated[float | None, Parameter(help="Seconds for a whole request.")] = None
    max_in_flight: Annotated[int | None, Parameter(help="The most requests at a time.")] = None
    rate: Annotated[int | None, Parameter(help="The most requests in a second.")] = None
    spec: Annotated[
        given.Source,
        Parameter(help="Anything as a JSON object, @path of a file, or -. The other options win over it."),
    ] = ""

    def body(self, **more: object) -> dict[str, Any]:
        """The JSON object for the API."""
        spec = given.json_object(self.spec, "--spec") if self.spec else {}
        return spec | given.kept(
            events=list(self.event),
            name=self.name,
            headers=given.pairs(self.header, "--header"),
            query=given.pairs(self.query, "--query"),
            filter=self.filter,
            order=self.order,
            profile=self.profile,
            signing=given.kept(scheme=self.sign, secret=self.secret),
            client_certificate=given.kept(
                certificate=given.text_or_file(self.client_certificate),
                key=given.text_or_file(self.client_key),
            ),
            timeout=self.timeout,
            max_in_flight=self.max_in_flight,
            rate_limit=given.kept(count=self.rate),
            **more,
        )


@app.command
def create(
    endpoint: str = "",
    /,
    *,
    from_: Annotated[str, Parameter(name="--from")] = "",
    paused: bool = False,
    options: Options = Options(),
    to: Target = Target(),
) -> None:
    """Create a subscription. Its signing secret is shown.

    Parameters
    ----------
    endpoint
        The URL where the events go. It may also stand in --spec.
    from_
        Also what is in the log already: beginning, or a time (7d for seven days ago). Default: from now on.
    paused
        Do not send anything yet.
    """
    body = options.body(url=endpoint, enabled=False if paused else None, **{"from": given.time(from_)})
    if "url" not in body:
        raise Usage("a subscription needs a URL")
    to.show(to.api.send("POST", path("subscriptions"), body))


@app.command
def update(id: str, /, *, endpoint: str = "", options: Options = Options(), to: Target = Target()) -> None:
    """Change a subscription; what is not given stays. In --spec, null puts a field back to its default.

    Parameters
    ----------
    endpoint
        Where the events go from now on.
    """
    to.show(to.api.send("PATCH", path("subscriptions", id), given.change(options.body(url=endpoint))))


@app.command(name="list")
def list_subscriptions(
    *, search: str = "", event: str = "", endpoint: str = "", limit: int = 0, to: Target = Target()
) -> None:
    """List subscriptions.

    Parameters
    ----------
    search
        Only those with this in name, URL or metadata.
    event
        Only those that name this event type or pattern.
    endpoint
        Only those with this in their URL.
    limit
        How many at most; 0 for all.
    """
    to.list(path("subscriptions"), COLUMNS, given.kept(search=search, event=event, url=endpoint), limit)


@app.command
def show(id: str, /, *, to: Target = Target()) -> None:
    """Show a subscription."""
    to.show(to.api.get(path("subscriptions", id)))


@app.command
def health(id: str, /, *, to: Target = Target()) -> None:
    """Show how far a subscription is, and what waits."""
    to.show(to.api.get(path("subscriptions", id, "health")))


@app.command
def secrets(id: str, /, *, to: Target = Target()) -> None:
    """Show the live signing secrets, the newest first."""
    to.show(to.api.get(path("subscriptions", id, "secret")))


@app.command
def pause(id: str, /, *, reason: str = "", to: Target = Target()) -> None:
    """Stop sending, and keep the place in the log.

    Parameters
    ----------
    reason
        Why, for those who look later.
    """
    to.show(to.api.send("POST", path("subscriptions", id, "pause"), given.kept(reason=reason)))


@app.command
def resume(id: str, /, *, skip: bool = False, to: Target = Target()) -> None:
    """Send again, from where it stopped.

    Parameters
    ----------
    skip
        Pass over what came meanwhile, and go on from now.
    """
    to.show(to.api.send("POST", path("subscriptions", id, "resume"), {"from": "now" if skip else "continue"}))


@app.command(name="test")
def send_test(id: str, /, *, type: str = "", data: given.Source = "", to: Target = Target()) -> int:
    """Send a test event right now, and show the answer. Exit code 1 if the endpoint did not accept it.

    Parameters
    ----------
    type
        Send as this event type, by default with its example.
    data
        The payload: JSON, @path of a file, or - for standard input.
    """
    body = given.spliced(given.kept(type=type), data=given.json_text(data, "--data") if data else "")
    answer = to.api.send_raw("POST", path("subscriptions", id, "test"), body)
    to.show(answer)
    return 0 if answer["accepted"] else EXIT_FAILED


@app.command
def preview(id: str, /, *, event: str = "", spec: given.Source = "", to: Target = Target()) -> None:
    """Show the exact request that an event would become, and whether and why it matches.

    Parameters
    ----------
    event
        The id of a stored event.
    spec
        An event as it would be published (JSON, @path of a file, or -).
    """
    if bool(event) == bool(spec):
        raise Usage("give either --event or --spec")
    body = given.spliced(given.kept(id=event), event=given.json_text(spec, "--spec") if spec else "")
    to.show(to.api.send_raw("POST", path("subscriptions", id, "preview"), body))


@app.command
def rotate_secret(
    id: str, /, *, overlap: float | None = None, secret: str = "", to: Target = Target()
) -> None:
    """Make a new signing secret; the old one goes on signing beside it for a while.

    Parameters
    ----------
    overlap
        Seconds that the old secret goes on. Default: a day.
    secret
        The new one, if it shall not be made.
    """
    body = given.kept(overlap=overlap, secret=secret)
    to.show(to.api.send("POST", path("subscriptions", id, "rotate-secret"), body))


@app.command
def delete(id: str, /, *, to: Target = Target()) -> None:
    """Delete a subscription for good. What still waited ends as expired."""
    to.api.send("DELETE", path("subscriptions", id))
    to.done(f"{id} is deleted")
