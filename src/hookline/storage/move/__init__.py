"""Moving a whole installation from one database to another."""

from __future__ import annotations

from hookline.storage.move.plan import MoveRefused
from hookline.storage.move.run import Compared, Moved, MoveMismatch, Wish, move

__all__ = ["Compared", "MoveMismatch", "MoveRefused", "Moved", "Wish", "move"]
