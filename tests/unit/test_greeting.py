"""What the server says at its first start."""

import sys
from pathlib import Path

import pytest

from hookline import greeting
from hookline.settings import Settings, load


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """``hookline`` in a folder that is on the PATH."""
    path = tmp_path / "bin" / "hookline"
    path.parent.mkdir()
    path.touch(0o755)
    monkeypatch.setenv("PATH", str(path.parent))
    monkeypatch.setattr(sys, "argv", [str(path), "serve"])
    monkeypatch.chdir(tmp_path)
    return path


def steps(settings: Settings, host: str = "127.0.0.1", port: int = 8480) -> list[str]:
    return [line.strip() for line in greeting.first_steps(settings, host, port).splitlines()[2:]]


def test_by_default_three_commands_are_enough() -> None:
    first, second, third, hint = steps(load({}))
    assert first.startswith("hookline tenants create")
    assert second.endswith("https://your-endpoint.example/hooks")
    assert third.startswith("hookline publish")
    assert "HOOKLINE_ALLOW_NETWORKS" in hint


def test_where_this_machine_is_open_the_endpoint_is_here() -> None:
    _, subscribe, _, hint = steps(load({"HOOKLINE_ALLOW_NETWORKS": "127.0.0.0/8"}))
    assert subscribe.endswith("http://127.0.0.1:9000/hooks")
    assert "`hookline listen`" in hint


def test_what_is_not_as_by_default_is_exported() -> None:
    url, key, *_ = steps(load({"HOOKLINE_DATA_DIR": "my data"}), port=9999)
    assert url == "export HOOKLINE_URL=http://127.0.0.1:9999"
    assert key == """export HOOKLINE_KEY="$(cat 'my data/operator.key')\""""
    key, *_ = steps(load({"HOOKLINE_OPERATOR_KEY": "k" * 30}), host="0.0.0.0")
    assert key == "export HOOKLINE_KEY='the operator key'"


def test_the_command_is_called_as_it_was_started(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert steps(load({}))[0].startswith("bin/hookline tenants")
    monkeypatch.setattr(sys, "argv", ["/x/hookline/__main__.py"])
    assert steps(load({}))[0].startswith(f"{sys.executable} -m hookline tenants")
    program.unlink()
    monkeypatch.setattr(sys, "argv", ["/other place/hookline"])
    assert steps(load({}))[0].startswith("'")


def test_an_address_can_be_opened() -> None:
    settings = load({})
    assert "http://127.0.0.1:8480/openapi.json" in greeting.address(settings, "0.0.0.0", 8480)
    assert "http://[::1]:80/openapi.json" in greeting.address(settings, "::1", 80)
    assert "hookline-data/operator.key" in greeting.address(settings, "::1", 80)
    assert "as set by" in greeting.address(load({"HOOKLINE_OPERATOR_KEY": "k" * 30}), "::1", 80)
