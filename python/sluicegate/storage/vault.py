"""Secrets at rest: AES-256-GCM under the master key, each bound to the place where it is stored."""

import base64
import binascii
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sluicegate.storage.errors import SecretsError
from sluicegate.storage.location import Location

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_NONCE_BYTES = 12
_FILE = "file:"
_OTHERS = 0o077


class Cipher:
    """One AES-256-GCM key. Sealed bytes are nonce, ciphertext and tag.

    The nonce is random: with 96 bits, one key may seal 2^32 values before two nonces could meet (2^-32).
    """

    __slots__ = ("_aead",)

    def __init__(self, key: bytes) -> None:
        self._aead = _aead(key)

    def seal(self, plain: bytes, place: str) -> bytes:
        """Encrypt for one place only: «table|row|column|workspace|origin»."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plain, place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """Decrypt. Raises SecretsError for bytes of another key or place, or altered ones."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415

        try:
            return self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.encode())
        except (InvalidTag, ValueError):
            raise SecretsError(
                "A stored secret cannot be opened: it was altered or moved, or the master key is another one."
            ) from None


def _aead(key: bytes) -> "AESGCM":
    # Imported late: it takes 20 ms, and a gateway that stores no secrets needs none of it.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    return AESGCM(key)


def place_of(table: str, row: str, column: str, workspace: str, origin: str = "") -> str:
    """Where a secret belongs; what is sealed for one place opens in no other."""
    parts = (table, row, column, workspace, origin)
    return "|".join(part.replace("%", "%25").replace("|", "%7C") for part in parts)


def read_master_key(location: Location) -> bytes | None:
    """The 32 bytes of the master key; None where none is given and no file is there yet.

    Raises SecretsError for a key that is malformed, or a file that others can read.
    """
    given = None if location.master_key is None else location.master_key.reveal()
    if given is None:
        return _read_file(location.master_key_file, missing_ok=True)
    if given.startswith(_FILE):
        return _read_file(Path(given.removeprefix(_FILE)), missing_ok=False)
    return _decode(given, "SLUICEGATE_MASTER_KEY")


def make_master_key(location: Location) -> bytes:
    """Make `master.key` in the data directory. Of several processes at once, one makes it for all."""
    target = location.master_key_file
    draft = target.with_name(f".master.key.{os.getpid()}.{secrets.token_hex(4)}")
    text = base64.b64encode(os.urandom(KEY_BYTES)) + b"\n"
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            # A link never overwrites: the first one stays.
            with suppress(FileExistsError):
                os.link(draft, target)
        finally:
            draft.unlink()
        _sync_directory(target.parent)
    except OSError as error:
        raise SecretsError(f"The master key {target} cannot be written: {error.strerror}.") from None
    key = _read_file(target, missing_ok=False)
    assert key is not None  # noqa: S101 (a missing file has raised)
    return key


def _read_file(path: Path, *, missing_ok: bool) -> bytes | None:
    try:
        mode = path.stat().st_mode
        text = path.read_text("ascii", errors="replace")
    except FileNotFoundError:
        if missing_ok:
            return None
        raise SecretsError(f"The master key file {path} does not exist.") from None
    except OSError as error:
        raise SecretsError(f"The master key file {path} cannot be read: {error.strerror}.") from None
    if mode & _OTHERS:
        raise SecretsError(f"The master key file {path} can be read by others. Run: chmod 600 {path}")
    return _decode(text, str(path))


def _decode(text: str, source: str) -> bytes:
    """32 bytes in base64 or in hex."""
    compact = "".join(text.split())
    for decode in (bytes.fromhex, lambda t: base64.b64decode(t, validate=True)):
        with suppress(ValueError, binascii.Error):
            key = decode(compact)
            if len(key) == KEY_BYTES:
                return key
    raise SecretsError(
        f"{source}: expected a master key of 32 bytes in base64 (`openssl rand -base64 32`), or file:PATH."
    )


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
