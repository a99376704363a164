"""The tree of commands, and what every command's end has in common."""

from __future__ import annotations

from collections.abc import Sequence

from cyclopts import App, CycloptsError, Group, Parameter, UnusedCliTokensError

from hookline import __version__
from hookline.cli import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE
from hookline.cli.failures import Failure
from hookline.cli.given import utf8
from hookline.cli.output import OutputFailed, complain, give_up, prepare
from hookline.core.errors import HooklineError, SettingsInvalid

_HELP = """A self-hosted platform for event-driven webhooks.

`hookline serve` runs it. The other commands talk to a running server: tell them where with --url or
HOOKLINE_URL, and who you are with --key or HOOKLINE_KEY. On the server's own machine neither is needed.
"""

_COMMANDS = {
    "Server": {
        "serve": ("local:serve", "Run the server."),
        "migrate": (
            "local:migrate",
            "Bring the database to the form this version needs, or move everything to another one.",
        ),
        "relay": ("relay:relay", "Take events from a program's outbox to a server, until stopped."),
        "demo": ("local:demo", "Run a day of a shop through a server of its own and check every delivery."),
        "doctor": (
            "doctor:doctor",
            "Check the settings of this machine and the health of a running server. Exit code 1: not all is well.",
        ),
        "bench": (
            "bench:bench",
            "Publish to a running server, receive here, and count what arrives and how fast.",
        ),
        "openapi": ("doctor:openapi", "Print the server's OpenAPI description."),
    },
    "Events": {
        "publish": ("events:publish", "Publish an event, or a file of events."),
        "tail": ("tail:tail", "Follow new events, or the deliveries of a subscription, until Ctrl-C."),
        "listen": (
            "listen:listen",
            "Receive webhooks on this machine and show them, until Ctrl-C: for trying out.",
        ),
        "replay": ("replay:replay", "Send the deliveries of a stretch of time again."),
        "events": ("events:app", "Look at events."),
        "event-types": ("event_types:app", "Manage the catalogue of event types."),
    },
    "Delivery": {
        "subscriptions": ("subscriptions:app", "Manage subscriptions."),
        "deliveries": ("deliveries:deliveries", "Look at deliveries and send them again."),
        "attempts": ("deliveries:attempts", "Look at single requests."),
    },
    "Accounts": {
        "tenants": ("tenants:tenants", "Manage tenants (needs an operator key)."),
        "keys": ("tenants:keys", "Manage API keys."),
        "usage": ("tenants:usage", "Show what a tenant used, day by day."),
    },
}


def _default(value: object) -> str | None:
    """What help shows as a default: nothing where "not given" has no value of its own."""
    return str(value) if value and value is not True else None


def build() -> App:
    """The whole command line. Modules of commands are not imported yet."""
    app = App(
        name="hookline",
        help=_HELP,
        version=__version__,
        help_format="markdown",
        default_parameter=Parameter(negative=(), show_default=_default),
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
    )
    last = Group("Options", sort_key=len(_COMMANDS))
    for flag in ("--help", "--version"):
        app[flag].group = last
    for order, (title, commands) in enumerate(_COMMANDS.items()):
        group = Group(title, sort_key=order)
        for name, (place, about) in commands.items():
            app.command(f"hookline.cli.{place}", name=name, help=about, group=group)
    return app


def run(argv: Sequence[str]) -> int:
    """Run one command line; returns the exit code."""
    prepare()
    try:
        return build()([utf8(argument) for argument in argv]) or 0
    except CycloptsError as error:
        complain(_told(error), [("", _help_of(error))])
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        give_up()  # the reader of our output has gone (`hookline tail | head`)
        return 0
    except Failure as failure:
        complain(str(failure), failure.faults)
        if isinstance(failure, OutputFailed):
            give_up()
        return failure.exit_code
    except HooklineError as error:
        complain(error.detail, [(fault.field, fault.message) for fault in error.faults])
        return EXIT_USAGE if isinstance(error, SettingsInvalid) else EXIT_FAILED


def _told(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"Nothing is expected where this stands: {' '.join(error.unused_tokens)}"
    return str(error)


def _help_of(error: CycloptsError) -> str:
    """Where to read what the command takes."""
    return f"See {' '.join(['hookline', *(error.command_chain or ())])} --help."
