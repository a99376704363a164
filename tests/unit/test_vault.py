"""Secrets at rest: sealed to their place, under a key that can be rotated."""

from __future__ import annotations

import os

import pytest

from hookline.core.vault import KEY_BYTES, AesGcmVault, SecretUnreadable

OLD, NEW = bytes(range(KEY_BYTES)), bytes(reversed(range(KEY_BYTES)))


def vault(*keys: bytes) -> AesGcmVault:
    return AesGcmVault(keys, os.urandom)


def test_a_sealed_secret_opens_at_its_place_and_shows_nothing() -> None:
    sealed = vault(OLD).seal(b"whsec_secret", "sub_1")
    assert b"secret" not in sealed
    assert vault(OLD).open(sealed, "sub_1") == b"whsec_secret"


def test_the_same_secret_is_never_sealed_alike() -> None:
    assert vault(OLD).seal(b"x", "sub_1") != vault(OLD).seal(b"x", "sub_1")


@pytest.mark.parametrize(
    "spoil", [lambda s: s[:-1] + bytes([s[-1] ^ 1]), lambda s: s[:10], lambda s: b"", lambda s: b"\2" + s[1:]]
)
def test_a_changed_secret_does_not_open(spoil) -> None:
    sealed = vault(OLD).seal(b"whsec_secret", "sub_1")
    with pytest.raises(SecretUnreadable):
        vault(OLD).open(spoil(sealed), "sub_1")


def test_a_secret_moved_to_another_place_does_not_open() -> None:
    with pytest.raises(SecretUnreadable):
        vault(OLD).open(vault(OLD).seal(b"x", "sub_1"), "sub_2")


def test_a_secret_of_an_unknown_key_does_not_open() -> None:
    with pytest.raises(SecretUnreadable):
        vault(NEW).open(vault(OLD).seal(b"x", "sub_1"), "sub_1")


def test_a_rotated_key_opens_the_old_and_seals_under_the_new() -> None:
    sealed = vault(OLD).seal(b"x", "sub_1")
    both = vault(NEW, OLD)
    renewed = both.reseal(sealed, "sub_1")
    assert vault(NEW).open(renewed, "sub_1") == b"x"
    assert both.reseal(renewed, "sub_1") == renewed


@pytest.mark.parametrize("keys", [(), (b"short",), (OLD, b"short")])
def test_keys_must_have_their_length(keys: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        vault(*keys)
