"""A folder of catalogue files that changes while it is used."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from hookline.core.errors import InvalidInput
from hookline.core.times import rfc3339
from hookline.profiles import folder as module
from hookline.profiles.catalogue import MAX_FILE_BYTES
from hookline.profiles.folder import MAX_FILES, CatalogueFolder, read_file

Lines = list[MutableMapping[str, Any]]


def text_of(*names: str, **more: object) -> str:
    entries = [{"name": name, "description": "", "usage": "", "schema": {}, "example": 1} for name in names]
    return json.dumps({"group": "Group", "types": entries, **more})


def put(path: Path, *names: str, **more: object) -> None:
    path.write_text(text_of(*names, **more))


def names_in(folder: CatalogueFolder) -> list[list[str]] | None:
    files = folder.read()
    return None if files is None else [list(file.types) for file in files]


def errors_of(folder: CatalogueFolder) -> tuple[list[list[str]] | None, Lines]:
    with structlog.testing.capture_logs() as lines:
        found = names_in(folder)
    return found, [line for line in lines if line["log_level"] == "error"]


def test_files_are_read_in_the_order_of_their_names_and_only_when_they_change(tmp_path: Path) -> None:
    folder = CatalogueFolder(tmp_path)
    assert names_in(folder) is None
    put(tmp_path / "b.json", "b1", "b2")
    put(tmp_path / "a.json", "a")
    (tmp_path / "notes.txt").write_text("not ours")
    put(tmp_path / ".hidden.json", "hidden")
    assert names_in(folder) == [["a"], ["b1", "b2"]]
    assert names_in(folder) is None
    put(tmp_path / "a.json", "a", "more")
    assert names_in(folder) == [["a", "more"], ["b1", "b2"]]
    (tmp_path / "b.json").unlink()
    assert names_in(folder) == [["a", "more"]]
    (tmp_path / "a.json").rename(tmp_path / "c.json")
    assert names_in(folder) == [["a", "more"]]
    assert names_in(folder) is None


def test_the_folder_may_come_and_go(tmp_path: Path) -> None:
    folder = CatalogueFolder(tmp_path / "catalogue")
    assert errors_of(folder) == (None, [])
    (tmp_path / "catalogue").mkdir()
    put(tmp_path / "catalogue/a.json", "a")
    assert names_in(folder) == [["a"]]
    (tmp_path / "catalogue/a.json").unlink()
    (tmp_path / "catalogue").rmdir()
    assert errors_of(folder) == ([], [])


def test_a_bad_file_is_told_once_and_its_last_good_version_stays(tmp_path: Path) -> None:
    folder, path = CatalogueFolder(tmp_path), tmp_path / "a.json"
    put(path, "one")
    put(tmp_path / "b.json", "other")
    assert names_in(folder) == [["one"], ["other"]]
    put(path, "a b", "c d")
    found, errors = errors_of(folder)
    assert found is None
    assert errors[0]["file"] == str(path)
    assert errors[0]["problem"] == "a.json: 2 faults"
    assert [fault.partition(":")[0] for fault in errors[0]["faults"]] == [
        "types[0] (a b) name",
        "types[1] (c d) name",
    ]
    assert errors[0]["in_use"] == "the last good version"
    assert errors_of(folder) == (None, [])
    put(tmp_path / "b.json", "changed")
    assert errors_of(folder) == ([["one"], ["changed"]], [])
    put(path, "good")
    assert errors_of(folder) == ([["good"], ["changed"]], [])


def test_a_file_that_was_never_good_brings_nothing(tmp_path: Path) -> None:
    folder = CatalogueFolder(tmp_path)
    (tmp_path / "a.json").write_text('{"group": "half writ')
    found, (error,) = errors_of(folder)
    assert found is None
    assert error["in_use"] == "none"
    assert "not valid JSON" in error["problem"]
    put(tmp_path / "a.json", "whole")
    assert names_in(folder) == [["whole"]]


def test_a_change_within_a_tick_of_the_clock_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same size, inode and times: as if both writes fell into one tick of the file system's clock."""
    monkeypatch.setattr(module, "_mark", lambda status: (1,))
    folder, path = CatalogueFolder(tmp_path), tmp_path / "a.json"
    put(path, "one")
    assert names_in(folder) == [["one"]]
    put(path, "two")
    assert names_in(folder) == [["two"]]


def test_a_settled_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, path = CatalogueFolder(tmp_path), tmp_path / "a.json"
    put(path, "one")
    monkeypatch.setattr(module, "_SETTLED_NS", 0)
    assert names_in(folder) == [["one"]]
    monkeypatch.setattr(module, "_bytes_of", None)
    assert names_in(folder) is None


# --- what is no file -----------------------------------------------------------------------------------------


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.mkdir()


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_dangling(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [make_pipe, make_folder, make_loop, make_dangling])
def test_what_is_no_file_is_told_and_does_no_harm(tmp_path: Path, make: Any) -> None:
    folder, path = CatalogueFolder(tmp_path), tmp_path / "a.json"
    make(path)
    put(tmp_path / "b.json", "fine")
    answer: list[tuple[list[list[str]] | None, Lines]] = []
    reader = threading.Thread(target=lambda: answer.append(errors_of(folder)), daemon=True)
    reader.start()
    reader.join(10)
    ((found, errors),) = answer
    assert found == [["fine"]]
    assert [error["file"] for error in errors] == [str(path)]
    assert errors_of(folder) == (None, [])
    with pytest.raises(InvalidInput, match=r"a\.json: cannot be read"):
        read_file(path)


def test_a_link_to_a_file_is_a_file(tmp_path: Path) -> None:
    """As ConfigMaps of Kubernetes are mounted."""
    (tmp_path / "catalogue").mkdir()
    put(tmp_path / "1", "one")
    put(tmp_path / "2", "two")
    (tmp_path / "catalogue/a.json").symlink_to(tmp_path / "1")
    folder = CatalogueFolder(tmp_path / "catalogue")
    assert names_in(folder) == [["one"]]
    (tmp_path / "new").symlink_to(tmp_path / "2")
    (tmp_path / "new").rename(tmp_path / "catalogue/a.json")
    assert names_in(folder) == [["two"]]


def test_a_file_is_bounded(tmp_path: Path) -> None:
    folder, path = CatalogueFolder(tmp_path), tmp_path / "a.json"
    put(path, "one")
    assert names_in(folder) == [["one"]]
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no space
    found, (error,) = errors_of(folder)
    assert found is None
    assert f"a file may have {MAX_FILE_BYTES} bytes" in error["problem"]


def test_so_is_their_number(tmp_path: Path) -> None:
    folder = CatalogueFolder(tmp_path)
    for number in range(MAX_FILES + 1):
        put(tmp_path / f"{number:04}.json", f"t{number}")
    found, (error,) = errors_of(folder)
    assert found is not None
    assert len(found) == MAX_FILES
    assert f"has {MAX_FILES + 1} files" in error["problem"]
    assert errors_of(folder) == (None, [])
    (tmp_path / "0000.json").unlink()
    found, errors = errors_of(folder)
    assert found is not None
    assert (len(found), errors) == (MAX_FILES, [])


def test_a_folder_that_is_none_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "catalogue"
    path.mkdir()
    put(path / "a.json", "a")
    folder = CatalogueFolder(path)
    assert names_in(folder) == [["a"]]
    (path / "a.json").unlink()
    path.rmdir()
    path.write_text("a file now")
    found, (error,) = errors_of(folder)
    assert found is None
    assert "cannot be read" in error["problem"]
    assert errors_of(folder) == (None, [])


@pytest.mark.parametrize("written", [-1, 10**12])
def test_a_file_may_have_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    path = tmp_path / "a.json"
    put(path, "a")
    status = os.stat_result(
        [*path.stat()[:8], written, written], {"st_mtime_ns": written * 10**9, "st_ctime_ns": 0}
    )
    monkeypatch.setattr(os, "fstat", lambda descriptor: status)  # not every file system keeps such a time
    found = read_file(path).types["a"]
    assert rfc3339(found.created_at)[:4] == ("1969" if written < 0 else "9999")


def test_one_file_can_be_read_alone(tmp_path: Path) -> None:
    put(tmp_path / "a.json", "one", profile="avvyr")
    found = read_file(tmp_path / "a.json")
    assert (list(found.types), found.profile) == (["one"], "avvyr")
    put(tmp_path / "a.json", "a b")
    with pytest.raises(InvalidInput) as caught:
        read_file(tmp_path / "a.json")
    assert caught.value.faults[0].field == "types[0] (a b) name"
