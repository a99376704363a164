"""Keys that are made here at the first start, unless they are set."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hookline.core.errors import Fault, SettingsInvalid
from hookline.settings.kinds import MASTER_KEY_BYTES, MASTER_KEYS
from hookline.settings.table import Settings


def operator_key(settings: Settings, make: Callable[[], str]) -> str:
    """The operator key: as set, or the one kept in the data folder, made with ``make`` at the first start."""
    return settings.operator_key or _kept(settings.data_dir / "operator.key", make)


def has_master_key(settings: Settings) -> bool:
    """Whether there is one already."""
    return bool(settings.master_key) or _master_key_file(settings).exists()


def master_keys(settings: Settings) -> tuple[bytes, ...]:
    """The master keys: as set, or the one kept in the data folder, made at the first start."""
    if settings.master_key:
        return settings.master_key
    path = _master_key_file(settings)
    try:
        return MASTER_KEYS.parse(
            _kept(path, lambda: base64.b64encode(secrets.token_bytes(MASTER_KEY_BYTES)).decode())
        )
    except ValueError as error:
        raise SettingsInvalid(faults=[Fault(str(path), f"accepted: {MASTER_KEYS.accepts}")]) from error


def _master_key_file(settings: Settings) -> Path:
    return settings.data_dir / "master.key"


def _kept(path: Path, make: Callable[[], str]) -> str:
    """The text of a file for its owner alone. It appears whole or not at all, and the first writer wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(make() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            path.hardlink_to(draft)
        draft.unlink()
    return path.read_text("utf-8").strip()
