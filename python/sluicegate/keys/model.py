"""A client key and the principal that it stands for."""

import hashlib
import secrets
import zlib

from msgspec import Struct

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KID_DIGITS = 12
_SECRET_DIGITS = 43  # 62^43 > 2^256
_CHECK_DIGITS = 6  # 62^6 > 2^32


class Principal(Struct, frozen=True, gc=False):
    """Who is calling. `id` is part of the key's digest: it names the key in logs and reveals nothing."""

    name: str
    id: str


def digest(key: bytes) -> bytes:
    """What is stored of a key. Its 256 random bits need no slow hash."""
    return hashlib.sha256(key).digest()


def principal(name: str, key: bytes) -> Principal:
    """The principal of a configured key."""
    return Principal(name, f"key_{digest(key).hex()[:12]}")


def mint() -> str:
    """A new key: `sk-sg-<kid>-<secret><crc>`; some clients insist on `sk-`, scanners find `sk-sg-`."""
    kid = "".join(secrets.choice(_BASE62) for _ in range(_KID_DIGITS))
    secret = "".join(secrets.choice(_BASE62) for _ in range(_SECRET_DIGITS))
    text = f"sk-sg-{kid}-{secret}"
    return text + _check_digits(text)


def is_mistyped(key: str) -> bool:
    """A key of our own format whose check digits are wrong: a typo or a truncated paste."""
    head, check = key[:-_CHECK_DIGITS], key[-_CHECK_DIGITS:]
    return key.startswith("sk-sg-") and _check_digits(head) != check


def _check_digits(text: str) -> str:
    number = zlib.crc32(text.encode())
    digits = ""
    for _ in range(_CHECK_DIGITS):
        number, rest = divmod(number, len(_BASE62))
        digits = _BASE62[rest] + digits
    return digits
