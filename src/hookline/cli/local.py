"""The commands that run here, without a server to talk to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from hookline.settings import SECTIONS, TABLE, Role, Settings, load

ConfigFile = Annotated[Path | None, Parameter(env_var="HOOKLINE_CONFIG", help="TOML file with settings.")]


def _about(name: str) -> Parameter:
    """An option that sets the setting of this name, with its help."""
    row = TABLE[name]
    default = f", default: {row.default}" if row.default else ""
    about = f"{row.help} [setting: {row.variable}{default}]"
    return Parameter(help=about, show_default=False)


def settings_help() -> str:
    """Every setting in one list, by section, for the end of ``hookline serve --help``."""
    lines = ["Settings, by environment or (in lower case, without the prefix) in the TOML file:"]
    for name, row in TABLE.items():
        if name in SECTIONS:
            lines += ["", f"**{SECTIONS[name]}**", ""]
        default = f" (default: `{row.default}`)" if row.default else ""
        lines.append(f"- `{row.variable}`: {row.help}{default}")
    return "\n".join(lines)


_FROM = "Move from here: `sqlite:///<path>` or `postgresql://…`. `@path` reads the address from a file."
_TO = "Move to this empty database: `postgresql://…`. `@path` reads the address from a file."

_MIGRATE = """Without `--from` and `--to` it does what `hookline serve` does when it starts. In PostgreSQL it also takes
the steps that must wait until no node of another version runs, unless one runs.

With them it moves an installation that is stopped: tenants, keys, subscriptions, the log, deliveries with their
sequences, and all records. Everything arrives, which is checked by a digest of each table, or nothing does. After any
break, run it again.
"""

serve = App(name="serve", help_epilogue=settings_help(), help_format="markdown")
migrate = App(name="migrate", help_epilogue=_MIGRATE, help_format="markdown")
demo = App(name="demo", help_flags=())


@serve.default
def run_serve(
    *,
    role: Annotated[Role | None, _about("role")] = None,
    host: Annotated[str, _about("host")] = "",
    port: Annotated[int | None, _about("port")] = None,
    data_dir: Annotated[str, _about("data_dir")] = "",
    database_url: Annotated[str, _about("database_url")] = "",
    bus: Annotated[str, _about("bus")] = "",
    config: ConfigFile = None,
) -> int:
    """Run the server until it is stopped (SIGTERM or Ctrl-C)."""
    given = {"role": role, "host": host, "port": port, "data_dir": data_dir}
    settings = _load({**given, "database_url": database_url, "bus": bus}, config)
    from hookline.app import run_server

    return run_server(settings)


@migrate.default
def run_migrate(
    *,
    source: Annotated[str, Parameter(name="--from", help=_FROM)] = "",
    target: Annotated[str, Parameter(name="--to", help=_TO)] = "",
    json: Annotated[bool, Parameter(help="Print JSON lines.")] = False,
    database_shards: Annotated[int | None, _about("database_shards")] = None,
    database_slices: Annotated[int | None, _about("database_slices")] = None,
    data_dir: Annotated[str, _about("data_dir")] = "",
    database_url: Annotated[str, _about("database_url")] = "",
    config: ConfigFile = None,
) -> int:
    """Bring the database to the form this version needs, or move everything to another one."""
    given = {"data_dir": data_dir, "database_url": database_url}
    settings = _load(
        {**given, "database_shards": database_shards, "database_slices": database_slices}, config
    )
    if source or target:
        from hookline.cli.move import run_move

        return run_move(settings, source, target, as_json=json)
    from hookline.app import run_migrate as migrate_database

    return migrate_database(settings)


@demo.default
def run_demo(*arguments: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> int:
    """Run a day of a shop through a server of its own and check every delivery."""
    from hookline.demo import main

    return main(list(arguments))


def _load(given: Mapping[str, object], config: Path | None) -> Settings:
    options = {name: str(value) for name, value in given.items() if value is not None}
    return load(config=config, options=options)
