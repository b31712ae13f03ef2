"""Cursors of lists: opaque, and good for the list that gave them only."""

import base64
import binascii
import hmac

from sluicegate.storage.errors import InvalidError
from sluicegate.storage.keyring import Keyring

_TAG = 12


class Cursors:
    """Signs the cursors of the stores, and binds each to its list, the workspace included."""

    def __init__(self, keyring: Keyring) -> None:
        self._key = hmac.digest(keyring.audit_key, b"cursors of lists", "sha256")

    def seal(self, of: str, cursor: str) -> str:
        """The cursor as a client sees it."""
        raw = cursor.encode()
        return base64.urlsafe_b64encode(self._tag(of, raw) + raw).decode().rstrip("=")

    def open(self, of: str, text: str) -> str:
        """The store's cursor. Raises InvalidError for one of another list, or one that nobody gave."""
        try:
            sealed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            tag, raw = sealed[:_TAG], sealed[_TAG:]
            if hmac.compare_digest(tag, self._tag(of, raw)):
                return raw.decode()
        except (UnicodeError, binascii.Error, ValueError):
            pass
        raise InvalidError("cursor", "not a cursor of this list; leave it out for the first page")

    def _tag(self, of: str, raw: bytes) -> bytes:
        return hmac.digest(self._key, of.encode() + b"\x00" + raw, "sha256")[:_TAG]
