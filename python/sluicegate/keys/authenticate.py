"""Credentials of a request → Principal, in constant time."""

import hmac
from collections.abc import Iterable, Mapping

import msgspec

from sluicegate import errors
from sluicegate.keys.model import Principal, digest, is_mistyped, principal

_HOW = "Send your gateway key in the header: Authorization: Bearer <key>"
_LONGEST = 1024


class Authenticator:
    """The known keys, by digest."""

    __slots__ = ("_by_digest",)

    def __init__(
        self, keys: Iterable[tuple[str, str]], models: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        """`keys`: (name, key) pairs. `models`: by the name of a key, the globs that it is restricted to."""
        self._by_digest: dict[bytes, tuple[bytes, Principal]] = {}
        for name, key in keys:
            text = key.encode()
            caller = msgspec.structs.replace(principal(name, text), models=(models or {}).get(name))
            self._by_digest[digest(text)] = (digest(text), caller)

    def authenticate(self, authorization: bytes | None, others: tuple[bytes, ...] = ()) -> Principal:
        """The principal of a request; `others` are the values of x-api-key and api-key.

        The table is searched by SHA-256 digest, not by key: its timing can only tell about digests, for which
        nobody can choose keys. What is found is compared once more in constant time.
        """
        if authorization is not None and authorization.startswith(b"Bearer sk-") and not others:
            # The usual form, tried as it is; what does not match is taken apart below.
            found = self._find(authorization[7:])
            if found is not None:
                return found
        key = credential_of(authorization, others)
        found = self._find(key)
        if found is not None:
            return found
        if is_mistyped(key.decode("latin-1")):
            raise errors.invalid_api_key("The API key is mistyped or cut off: its check digits are wrong.")
        raise errors.invalid_api_key(
            "The API key is not known here. Check that it is a key of this gateway, not of an upstream."
        )

    def _find(self, key: bytes) -> Principal | None:
        given = digest(key)
        stored, found = self._by_digest.get(given, _NOBODY)
        return found if hmac.compare_digest(given, stored) else None


def credential_of(authorization: bytes | None, others: tuple[bytes, ...]) -> bytes:
    """The one key in the request; two different ones could mean two different callers."""
    if authorization is not None:
        scheme, _, key = authorization.partition(b" ")
        key = key.strip()
        if scheme.lower() != b"bearer" or not key or b" " in key:
            raise errors.invalid_api_key(f"The Authorization header is malformed. {_HOW}")
    elif others:
        key = others[0]
    else:
        raise errors.invalid_api_key(f"The request has no API key. {_HOW}")
    if others and any(other != key for other in others):
        raise errors.bad_request(
            "conflicting_credentials",
            "The request has two different API keys (Authorization, x-api-key, api-key). Send one.",
        )
    if not key or len(key) > _LONGEST:
        raise errors.invalid_api_key(f"The API key is malformed. {_HOW}")
    return key


_NOBODY: tuple[bytes, Principal | None] = (bytes(32), None)
