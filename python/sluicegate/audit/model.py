"""One entry of the audit log, and the chain that shows any later edit."""

import hmac
from typing import Any

import msgspec
from msgspec import Struct


class Entry(Struct, frozen=True, kw_only=True):
    """Who did what to which object, and when (`at`: milliseconds since 1970).

    `action` is «object.verb», such as `key.revoke`. `detail` says what changed, and never holds a secret.
    """

    sequence: int
    at: int
    workspace: str
    actor: str
    action: str
    object: str
    detail: dict[str, Any]
    request_id: str | None = None


class Chained(Struct, frozen=True):
    """An entry as stored: `link` covers it and all entries before it."""

    entry: Entry
    link: bytes


# What the first entry follows.
GENESIS = bytes(32)

_encoder = msgspec.json.Encoder(order="sorted")


def link(key: bytes, previous: bytes, entry: Entry) -> bytes:
    """HMAC-SHA256 over the link before and the entry. Who can only write the database cannot make one."""
    return hmac.digest(key, previous + _encoder.encode(entry), "sha256")
