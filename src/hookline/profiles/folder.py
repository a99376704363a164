"""A folder of files with event types, looked at again and again."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from hookline.core.errors import HooklineError, InvalidInput
from hookline.core.model import Millis, TypeSource
from hookline.observe import log
from hookline.profiles.catalogue import MAX_FILE_BYTES, TypeFile, read_types

MAX_FILES: Final = 1000
_LOGGED_FAULTS: Final = 20
_SETTLED_NS: Final = 2_000_000_000
"""A file that changed within this time before it was read is read again: a file system's clock has coarse ticks, so
another change may have left the same times and size."""

_LATEST: Final[Millis] = 253_402_300_799_999
"""The end of the year 9999."""

_Mark = tuple[int, ...]


class _Known(Struct, frozen=True):
    """What is known of one file: how it looked when it was read, and its last good content."""

    mark: _Mark | None = None
    digest: bytes = b""
    content: TypeFile | None = None
    complaint: str = ""


class CatalogueFolder:
    """The ``*.json`` files right in one folder, in the order of their names. The folder need not exist."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, _Known] = {}
        self._complaint = ""

    def read(self) -> Sequence[TypeFile] | None:
        """What the files say now; None if that is what the last call said (at first: nothing). Waits for the disk.

        A file that cannot be used is logged once, and its last good version stays in use.
        """
        try:
            names = self._names()
        except OSError as error:
            self._complain(f"{self._path} cannot be read: {error.strerror}")
            return None
        before = self._contents()
        self._known = {name: self._look(name, self._known.get(name, _Known())) for name in names}
        now = self._contents()
        if len(now) == len(before) and all(a is b for a, b in zip(now, before, strict=True)):
            return None
        log.info(
            "catalogue_read", folder=str(self._path), files=len(now), types=sum(len(one.types) for one in now)
        )
        return now

    def _contents(self) -> list[TypeFile]:
        return [known.content for known in self._known.values() if known.content is not None]

    def _names(self) -> list[str]:
        try:
            found = os.listdir(self._path)  # noqa: PTH208 - names are all we need
        except FileNotFoundError:
            found = []
        names = sorted(name for name in found if name.endswith(".json") and not name.startswith("."))
        more = f"{self._path} has {len(names)} files; the first {MAX_FILES} are used"
        self._complain(more if len(names) > MAX_FILES else "")
        return names[:MAX_FILES]

    def _complain(self, message: str) -> None:
        """Log what is wrong with the folder, when it begins to be."""
        if message not in ("", self._complaint):
            log.error("catalogue_folder_refused", problem=message)
        self._complaint = message

    def _look(self, name: str, known: _Known) -> _Known:
        path = self._path / name
        try:
            if _mark(path.stat()) == known.mark:
                return known
            text, status = _bytes_of(path)
        except OSError as error:
            return _complained(path, replace(known, mark=None), f"cannot be read: {error.strerror}", ())
        seen = replace(known, mark=_mark(status) if _settled(status) else None, digest=sha256(text).digest())
        if seen.digest == known.digest:
            return seen
        try:
            content = read_types(text, name, TypeSource.FILE, _written_at(status))
        except HooklineError as error:
            places = [f"{fault.field}: {fault.message}" for fault in error.faults]
            return _complained(path, seen, error.detail, places)
        return replace(seen, content=content, complaint="")


def read_file(path: Path) -> TypeFile:
    """One file, outside of any folder. Raises ``InvalidInput`` with everything that is wrong with it."""
    try:
        text, status = _bytes_of(path)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from None
    return read_types(text, str(path), TypeSource.FILE, _written_at(status))


def _complained(path: Path, known: _Known, message: str, places: Sequence[str]) -> _Known:
    """Log what is wrong with a file, unless that was the last thing said of it."""
    if message != known.complaint:
        in_use = "none" if known.content is None else "the last good version"
        shown = list(places[:_LOGGED_FAULTS])
        log.error("catalogue_file_refused", file=str(path), problem=message, faults=shown, in_use=in_use)
    return replace(known, complaint=message)


def _bytes_of(path: Path) -> tuple[bytes, os.stat_result]:
    """A file's bytes (of one too large, one more than it may have) and its state. Raises ``OSError``, also for what is
    no file."""
    # Without waiting: a pipe would make us wait for whoever writes into it.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return file.read(MAX_FILE_BYTES + 1), status


def _mark(status: os.stat_result) -> _Mark:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _settled(status: os.stat_result) -> bool:
    return not 0 <= time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < _SETTLED_NS


def _written_at(status: os.stat_result) -> Millis:
    """Some file systems keep any time at all; RFC 3339 has no text for those after the year 9999."""
    return min(status.st_mtime_ns // 1_000_000, _LATEST)
