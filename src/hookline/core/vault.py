"""Secrets at rest: AES-256-GCM under a master key that can be rotated.

A sealed value is ``version (1 byte) ‖ key id (4 bytes) ‖ nonce (12 bytes) ‖ ciphertext and tag``. The context (what the
secret belongs to) is authenticated with it, so a value moved to another row does not open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hookline.core.errors import HooklineError

KEY_BYTES = 32
_VERSION = b"\x01"
_ID_END, _NONCE_END = 5, 17


class SecretUnreadable(HooklineError):
    """A sealed value was changed or moved, or its master key is not among the configured ones."""

    code = "secret_unreadable"
    title = (
        "A stored secret cannot be decrypted: HOOKLINE_MASTER_KEY, or master.key in the data folder, must have the key "
        "that encrypted it"
    )


class AesGcmVault:
    """Seals with the first of ``keys`` (32 bytes each) and opens with any of them."""

    def __init__(self, keys: Sequence[bytes], entropy: Callable[[int], bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"a master key has {KEY_BYTES} bytes, and there is at least one")
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}
        self._current = _key_id(keys[0])
        self._entropy = entropy

    def seal(self, plain: bytes, context: str) -> bytes:
        """Encrypt under the current key."""
        nonce = self._entropy(_NONCE_END - _ID_END)
        sealed = self._ciphers[self._current].encrypt(nonce, plain, context.encode())
        return _VERSION + self._current + nonce + sealed

    def open(self, sealed: bytes, context: str) -> bytes:
        """Decrypt. Raises ``SecretUnreadable``."""
        cipher = self._ciphers.get(sealed[1:_ID_END])
        if sealed[:1] != _VERSION or cipher is None:
            raise SecretUnreadable
        try:
            return cipher.decrypt(sealed[_ID_END:_NONCE_END], sealed[_NONCE_END:], context.encode())
        except (InvalidTag, ValueError) as error:
            raise SecretUnreadable from error

    def reseal(self, sealed: bytes, context: str) -> bytes:
        """The same secret under the current key: unchanged if it is already. Raises ``SecretUnreadable``."""
        plain = self.open(sealed, context)
        return sealed if sealed[1:_ID_END] == self._current else self.seal(plain, context)


def _key_id(key: bytes) -> bytes:
    return sha256(b"hookline master key id" + key).digest()[:4]
