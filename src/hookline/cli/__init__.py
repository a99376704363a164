"""The command ``hookline``: a module for each group of commands, imported when one of the group is used.

``serve``, ``migrate`` and ``demo`` run here; everything else talks to a server over HTTP. Exit codes: 0 done,
1 the server (or a check) said no, 2 the command line or a setting is wrong, 3 the server cannot be reached.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit code."""
    try:
        from hookline.cli import root
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] == "hookline":
            raise
        sys.stderr.write(f"{error.name} is missing: install hookline with its extra, hookline[server].\n")
        sys.exit(EXIT_USAGE)
    sys.exit(root.run(sys.argv[1:] if argv is None else argv))
