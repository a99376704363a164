"""``python -m hookline.outbox``: the outbox's tables as SQL."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from hookline.outbox.box import Outbox
from hookline.outbox.errors import InvalidName
from hookline.outbox.names import TABLE
from hookline.outbox.schema import removal, statements


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m hookline.outbox", description="The tables of a transactional outbox."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    sql = commands.add_parser("sql", help="print the SQL that makes them; it may be run again")
    sql.add_argument("dialect", choices=("postgresql", "sqlite"))
    sql.add_argument("--table", default=TABLE, metavar="NAME", help=f"default: {TABLE}")
    sql.add_argument("--schema", metavar="NAME", help="default: as the search path has it")
    sql.add_argument("--drop", action="store_true", help="the SQL that removes them, with what is in them")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code."""
    given = _arguments(argv)
    try:
        names = Outbox(table=given.table, schema=given.schema).names
    except InvalidName as error:
        sys.stderr.write(f"{error}\n")
        return 2
    made = (removal if given.drop else statements)(names, given.dialect)
    sys.stdout.write("BEGIN;\n\n" + "".join(f"{statement};\n\n" for statement in made) + "COMMIT;\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
