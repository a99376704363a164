"""The settings of a process: one table that feeds reading, help and docs."""

from hookline.settings.keys import has_master_key, master_keys, operator_key
from hookline.settings.kinds import Network, Role
from hookline.settings.reading import load
from hookline.settings.table import OTHER_VARIABLES, PREFIX, SECTIONS, TABLE, Row, Settings

__all__ = [
    "OTHER_VARIABLES",
    "PREFIX",
    "SECTIONS",
    "TABLE",
    "Network",
    "Role",
    "Row",
    "Settings",
    "has_master_key",
    "load",
    "master_keys",
    "operator_key",
]
