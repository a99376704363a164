"""Migrations before and after a roll-out: old and new nodes side by side on one database."""

from __future__ import annotations

import pytest

from hookline.storage.migrate import Migration, SchemaMismatch, at_start, check, missing

START = Migration(1, "0001_start", "a")
PRE = Migration(2, "0002_pre_more", "b")
POST = Migration(3, "0003_post_more", "c")
NEXT_PRE = Migration(4, "0004_pre_next", "d")


def _applied(*migrations: Migration) -> dict[str, str]:
    return {migration.name: migration.checksum for migration in migrations}


@pytest.mark.parametrize(("migration", "stage"), [(START, ""), (PRE, "pre"), (POST, "post")])
def test_a_name_tells_the_stage(migration: Migration, stage: str) -> None:
    assert migration.stage == stage


def test_a_node_that_starts_leaves_out_what_comes_after_the_roll_out() -> None:
    lacking = missing(_applied(START), [START, PRE, POST], rolling=True)
    assert lacking == [PRE, POST]
    assert at_start(lacking) == [PRE]
    assert at_start([POST]) == []


def test_an_upgrade_builds_on_one_that_is_finished() -> None:
    with pytest.raises(SchemaMismatch, match=r"not finished \(0003_post_more\)"):
        at_start([POST, NEXT_PRE])


def test_an_old_node_works_on_beside_the_next_release() -> None:
    check(_applied(START, PRE), [START], rolling=True)
    assert missing(_applied(START, PRE), [START], rolling=True) == []
    with pytest.raises(SchemaMismatch, match="0003_post_more"):
        check(_applied(START, PRE, POST), [START], rolling=True)
    with pytest.raises(SchemaMismatch, match="0002_pre_more"):
        check(_applied(START, PRE), [START])
    with pytest.raises(SchemaMismatch, match="changed after"):
        check({START.name: "other"} | _applied(PRE), [START], rolling=True)
