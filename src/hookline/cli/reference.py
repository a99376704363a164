"""docs/reference/settings.md and cli.md, made from what the code says. Run as a module to write them (scripts/docs)."""

from __future__ import annotations

import re
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from hookline.cli.bench import ABOUT
from hookline.cli.root import build
from hookline.demo import parser as demo_options
from hookline.settings import OTHER_VARIABLES, SECTIONS, TABLE, Row

_MADE = "<!-- Made by scripts/docs from the code. Do not edit. -->\n"

_SETTINGS = """# Settings

`hookline serve` reads its settings from the environment and from a TOML file (`--config` or `HOOKLINE_CONFIG`). In the
file a setting has its name in lower case without the prefix (`port = 8480`); lists may be TOML lists. An option of the
command wins over the environment, and that over the file. An empty value counts as not given.

The server does not start with a setting that is wrong or unknown: it names every fault at once. The values of secrets
(marked with a lock) are never shown.
"""

_CLI = """# The command `hookline`

Exit codes: 0 done; 1 the server, or a check, said no; 2 the command line or a setting is wrong; 3 the server cannot be
reached.

On a terminal, lists are tables; into a pipe they are tab-separated lines with a heading; with `--json` every command
prints JSON, one object a line. Errors go to standard error, with every fault that the server names.

Where the help says so, a value that starts with `@` is read from the file behind it, and `-` is standard input. Times
are RFC 3339, or how long ago: `30s`, `15m`, `2h`, `7d`. The [settings](settings.md) of the server have a page of their
own.
"""


def settings_page() -> str:
    """docs/reference/settings.md."""
    return _MADE + _SETTINGS + "\n".join(_settings_lines()) + "\n"


def _settings_lines() -> Iterator[str]:
    for name, row in TABLE.items():
        if name in SECTIONS:
            yield f"\n## {SECTIONS[name]}"
        yield from _entry(row)
    yield "\n## Variables of the client commands\n"
    for variable, about in OTHER_VARIABLES.items():
        yield f"- `{variable}`: {about}"


def _entry(row: Row) -> Iterator[str]:
    yield f"\n### `{row.variable}`{' 🔒' if row.secret else ''}\n"
    yield row.help
    yield ""
    yield f"- In the file: `{row.name}`"
    yield f"- Accepts: {row.kind.accepts}"
    if row.default:
        yield f"- Default: `{row.default}`"


def cli_page() -> str:
    """docs/reference/cli.md."""
    with _named("hookline"):
        made = build().generate_docs(output_format="markdown", max_heading_level=4)
    body = re.sub(r"^# hookline$", "", made, count=1, flags=re.MULTILINE).strip()
    body = _DEMO_ARGUMENTS.sub("\n".join(_demo_lines()), body, count=1)
    body = _BENCH.sub(lambda found: f"{found[0]}\n{ABOUT}", body, count=1)
    return _MADE + _CLI + "\n" + body + "\n"


_BENCH = re.compile(r"^hookline bench \[OPTIONS\]\n```\n\n.*\n", re.MULTILINE)
"""The command whose epilogue belongs on the page too: cyclopts leaves them out."""


_DEMO_ARGUMENTS = re.compile(r"\*\*Arguments\*\*:\n\n\* `ARGUMENTS`: *")
"""All that cyclopts knows of a command that reads its own arguments."""


def _demo_lines() -> Iterator[str]:
    yield "[A day of a shop](../tutorial/demo.md) tells what happens.\n\n**Options**:\n"
    for action in demo_options()._actions:  # noqa: SLF001 - argparse has no other list
        if action.option_strings and action.help and action.dest != "help":
            name = f"{action.option_strings[0]} {action.metavar or ''}".rstrip()
            yield f"* `{name}`: {action.help[0].upper()}{action.help[1:]}."


@contextmanager
def _named(program: str) -> Generator[None]:
    """cyclopts writes the running program's name into usage lines; the pages must not depend on it."""
    given, sys.argv = sys.argv, [program]
    try:
        yield
    finally:
        sys.argv = given


def main() -> None:
    """Write both pages into the folder given."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.md").write_text(settings_page(), "utf-8")
    (folder / "cli.md").write_text(cli_page(), "utf-8")


if __name__ == "__main__":
    main()
