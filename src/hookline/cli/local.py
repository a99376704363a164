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
    about = f"{row.help} [setting: {row.variable}, default: {row.default}]"
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


serve = App(name="serve", help_epilogue=settings_help(), help_format="markdown")
migrate = App(name="migrate")
demo = App(name="demo", help_flags=())


@serve.default
def run_serve(
    *,
    role: Annotated[Role | None, _about("role")] = None,
    host: Annotated[str, _about("host")] = "",
    port: Annotated[int | None, _about("port")] = None,
    data_dir: Annotated[str, _about("data_dir")] = "",
    database_url: Annotated[str, _about("database_url")] = "",
    config: ConfigFile = None,
) -> int:
    """Run the server until it is stopped (SIGTERM or Ctrl-C)."""
    given = {"role": role, "host": host, "port": port, "data_dir": data_dir, "database_url": database_url}
    settings = _load(given, config)
    from hookline.app import run_server

    return run_server(settings)


@migrate.default
def run_migrate(
    *,
    data_dir: Annotated[str, _about("data_dir")] = "",
    database_url: Annotated[str, _about("database_url")] = "",
    config: ConfigFile = None,
) -> int:
    """Bring the database to the form this version needs, and stop.

    `hookline serve` does the same when it starts; this is for those who want to do it before.
    """
    settings = _load({"data_dir": data_dir, "database_url": database_url}, config)
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
