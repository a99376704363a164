"""What somebody reads who starts the server: where it is, and at the first start how to go on."""

from __future__ import annotations

import ipaddress
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from hookline.settings import TABLE, Settings

_LOOPBACK = ipaddress.ip_address("127.0.0.1")
_TRIAL = "http://127.0.0.1:9000/hooks"


def address(settings: Settings, host: str, port: int) -> str:
    """The lines that say where everything is."""
    base, key = _base(host, port), _key_file(settings)
    return f"""
Hookline answers at {base}
  API description  {base}/openapi.json
  Console          {base}/console (comes with a later version)
  Operator key     {key or "as set by HOOKLINE_OPERATOR_KEY"}
  Data             {settings.data_dir}
"""


def first_steps(settings: Settings, host: str, port: int) -> str:
    """The commands to a first delivery. They work as they stand, in another terminal in the same folder."""
    program = _program()
    local = any(_LOOPBACK in network for network in settings.allow_networks)
    url = _TRIAL if local else "https://your-endpoint.example/hooks"
    lines = [
        "\nThree commands to a first delivery (in another terminal, in this folder):",
        *(f"  {line}" for line in _exports(settings, host, port)),
        f'  {program} tenants create shop --name "My shop"',
        f"  {program} subscriptions create --tenant shop --event 'order:*' {url}",
        f'  {program} publish --tenant shop order:created \'{{"order": "4471"}}\'',
        f"`{program} listen` in a third terminal is an endpoint that shows what arrives."
        if local
        else "To try it with an endpoint on this machine, start with HOOKLINE_ALLOW_NETWORKS=127.0.0.0/8.",
    ]
    return "\n".join(lines) + "\n"


def _base(host: str, port: int) -> str:
    shown = "127.0.0.1" if ipaddress.ip_address(host).is_unspecified else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def _key_file(settings: Settings) -> Path | None:
    return None if settings.operator_key else settings.data_dir / "operator.key"


def _exports(settings: Settings, host: str, port: int) -> Iterator[str]:
    """What the client commands cannot know because it is not as by default."""
    base, key = _base(host, port), _key_file(settings)
    if base != f"http://127.0.0.1:{TABLE['port'].default}":
        yield f"export HOOKLINE_URL={base}"
    if key is None:
        yield "export HOOKLINE_KEY='the operator key'"
    elif settings.data_dir != Path(TABLE["data_dir"].default):
        yield f'export HOOKLINE_KEY="$(cat {shlex.quote(str(key))})"'


def _program() -> str:
    """How to call the command from where we are: its name, if the shell would find the same one."""
    mine = Path(sys.argv[0])
    if mine.name == "__main__.py":
        return shlex.join([sys.executable, "-m", "hookline"])
    found = shutil.which(mine.name)
    if found is not None and Path(found).resolve() == mine.resolve():
        return mine.name
    return shlex.quote(os.path.relpath(mine))
