"""Files of event types and a running server: there from the first request on, followed while it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Api, ServerProcess, running
from tests.support.waiting import eventually


def write(path: Path, *names: str) -> None:
    entries = [{"name": name, "description": "", "usage": "", "schema": {}, "example": 1} for name in names]
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({"group": "Files", "types": entries}))
    draft.rename(path)


async def names_of(tenant: Api) -> list[str]:
    return [one["name"] for one in await tenant.listing("/v1/event-types")]


def refused(server: ServerProcess) -> list[Any]:
    lines = (json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == "catalogue_file_refused"]


@pytest.mark.parametrize("place", ["", "elsewhere"])
async def test_files_are_followed(tmp_path: Path, place: str) -> None:
    data = tmp_path / "data"
    folder = tmp_path / place if place else data / "catalogue"
    folder.mkdir(parents=True)
    write(folder / "a.json", "file:one")
    (folder / "bad.json").write_text('{"group": "x", "types": [{"name": "a b"}]}')
    server = ServerProcess(data, **({"catalogue_dir": str(folder)} if place else {}))
    async with running(server):
        tenant = await Api(server).new_tenant("shop")
        assert await names_of(tenant) == ["file:one"]
        (line,) = refused(server)
        assert line["file"] == str(folder / "bad.json")
        assert "types[0].schema: is required" in line["faults"]
        write(folder / "b.json", "file:two")
        await eventually(
            lambda: names_of(tenant), lambda names: names == ["file:one", "file:two"], "two types"
        )
        (folder / "a.json").unlink()
        (folder / "bad.json").unlink()
        await eventually(lambda: names_of(tenant), lambda names: names == ["file:two"], "one type")
        assert await server.terminate() == 0
    assert len(refused(server)) == 1


async def test_the_default_folder_may_come_later(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    async with running(server):
        tenant = await Api(server).new_tenant("shop")
        assert await names_of(tenant) == []
        (tmp_path / "data/catalogue").mkdir()
        write(tmp_path / "data/catalogue/a.json", "file:one")
        await eventually(lambda: names_of(tenant), lambda names: names == ["file:one"], "one type")
    assert server.complaints() == []
