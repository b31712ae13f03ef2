"""The text of a key: its format, its check digits, and the digest that is stored of it."""

import hmac
import secrets
import zlib
from typing import Literal

from msgspec import Struct

from sluicegate.engine import sha256

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DIGITS = frozenset(_BASE62)
_KID_DIGITS = 12
_SECRET_DIGITS = 43  # 62^43 > 2^256
_CHECK_DIGITS = 6  # 62^6 > 2^32
_TAIL = _KID_DIGITS + 1 + _SECRET_DIGITS + _CHECK_DIGITS

Kind = Literal["client", "admin"]
# Some clients insist on `sk-`; secret scanners find `sk-sg`.
_PREFIXES: dict[Kind, str] = {"client": "sk-sg-", "admin": "sk-sgadmin-"}


class Format(Struct, frozen=True):
    """What the text of a well-formed key of ours says: `kid` is public, it names the key in lists."""

    kind: Kind
    kid: str


def digest(key: bytes) -> bytes:
    """SHA-256 of a key: what a process keeps of the keys in use. Their 256 random bits need no slow hash."""
    return sha256(key)


def peppered(pepper: bytes, key: bytes) -> bytes:
    """What the database keeps of a key. Without the pepper nobody can make one for a key of their own."""
    return hmac.digest(pepper, b"secret\x00" + key, "sha256")


def lookup_of(pepper: bytes, key: bytes) -> str:
    """The name under which a key that was chosen by a person is found: it has no kid of ours."""
    return "x" + hmac.digest(pepper, b"lookup\x00" + key, "sha256").hex()[:32]


def mint(kind: Kind = "client", kid: str | None = None) -> str:
    """A new key, `sk-sg-<kid:12>-<secret:43><check:6>`; with `kid`, a further secret of that key."""
    kid = kid or new_kid()
    secret = "".join(secrets.choice(_BASE62) for _ in range(_SECRET_DIGITS))
    text = f"{_PREFIXES[kind]}{kid}-{secret}"
    return text + _check_digits(text)


def new_kid() -> str:
    """A public name for a key: 71 random bits."""
    return "".join(secrets.choice(_BASE62) for _ in range(_KID_DIGITS))


def read(key: str) -> Format | None:
    """Kind and kid of a key in our own format, check digits and all; None for any other text."""
    for kind, prefix in _PREFIXES.items():
        tail = key.removeprefix(prefix)
        if (
            len(tail) == _TAIL
            and len(key) == _TAIL + len(prefix)
            and tail[_KID_DIGITS] == "-"
            and _DIGITS.issuperset(tail[:_KID_DIGITS])
            and _DIGITS.issuperset(tail[_KID_DIGITS + 1 :])
            and not is_mistyped(key)
        ):
            return Format(kind, tail[:_KID_DIGITS])
    return None


def is_mistyped(key: str) -> bool:
    """A key of our own format whose check digits are wrong: a typo or a truncated paste."""
    head, check = key[:-_CHECK_DIGITS], key[-_CHECK_DIGITS:]
    return key.startswith(tuple(_PREFIXES.values())) and _check_digits(head) != check


def last_digits(key: str) -> str:
    """What lists show of a key: four characters, of a short one nothing."""
    return key[-4:] if len(key) >= _TAIL // 2 else ""


def _check_digits(text: str) -> str:
    number = zlib.crc32(text.encode())
    digits = ""
    for _ in range(_CHECK_DIGITS):
        number, rest = divmod(number, len(_BASE62))
        digits = _BASE62[rest] + digits
    return digits
