"""Credentials of a request → Principal: keys of the settings, and with a database those in use there."""

import hmac
from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from sluicegate import errors
from sluicegate.clock import wall_ns
from sluicegate.keys.model import Grant, Principal, digest, is_mistyped, principal
from sluicegate.storage.errors import UnavailableError

_HOW = "Send your gateway key in the header: Authorization: Bearer <key>"
_LONGEST = 1024


class Grants(Protocol):
    """Keys in a database; `keys.cache.KeyReader` is one."""

    def peek(self, key: bytes) -> Grant | None:
        """What is known of a key without waiting; None: ask `find`."""

    async def find(self, key: bytes) -> Grant | None:
        """What a key is worth; None for one that nobody has. Raises UnavailableError."""


class NoGrants:
    """A database that has not answered yet: nobody is let in."""

    def peek(self, key: bytes) -> Grant | None:
        """Of no key."""
        del key
        return None

    async def find(self, key: bytes) -> Grant | None:
        """Raises UnavailableError."""
        del key
        raise UnavailableError("The database has not answered since the start.")


class Authenticator:
    """The known keys, by digest."""

    __slots__ = ("_by_digest", "grants")

    def __init__(
        self, keys: Iterable[tuple[str, str]], models: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        """`keys`: (name, key) pairs. `models`: by the name of a key, the globs that it is restricted to."""
        # Of a database; None: the settings have all the keys there are.
        self.grants: Grants | None = None
        self._by_digest: dict[bytes, tuple[bytes, Principal]] = {}
        for name, key in keys:
            text = key.encode()
            caller = msgspec.structs.replace(principal(name, text), models=(models or {}).get(name))
            self._by_digest[digest(text)] = (digest(text), caller)

    def known(self, authorization: bytes | None, others: tuple[bytes, ...] = ()) -> Principal | None:
        """The principal of a key in the usual form, where no database has to be asked; None: ask `find`."""
        if authorization is None or others or not authorization.startswith(b"Bearer sk-"):
            return None
        key = authorization[7:]
        if self._by_digest:
            found = self._find(key)
            if found is not None:
                return found
        grant = None if self.grants is None else self.grants.peek(key)
        if grant is None or grant.refused is not None or grant.principal.kind != "client":
            return None
        found = grant.principal
        if found.until is not None and found.is_over(wall_ns() // 1_000_000):
            return None
        return found

    async def find(self, authorization: bytes | None, others: tuple[bytes, ...] = ()) -> Principal:
        """The principal of a request; `others` are the values of x-api-key and api-key.

        Raises what the client is told: 400 for two different keys, 401, 403 for an admin key, and 503 where
        only the database could tell and does not answer: that is never a yes.
        """
        if self.grants is None:
            return self.authenticate(authorization, others)
        key = credential_of(authorization, others)
        found = self._find(key)
        if found is not None:
            return found
        _require_typed(key)
        try:
            grant = self.grants.peek(key) or await self.grants.find(key)
        except UnavailableError:
            raise errors.unavailable(
                "auth_unavailable",
                "The API key cannot be checked: the gateway's database does not answer. Try again shortly.",
            ) from None
        if grant is None:
            raise _unknown()
        return _granted(grant)

    def authenticate(self, authorization: bytes | None, others: tuple[bytes, ...] = ()) -> Principal:
        """As `find`, for keys of the settings alone.

        The table is searched by SHA-256 digest, not by key: its timing can only tell about digests, for which
        nobody can choose keys. What is found is compared once more in constant time.
        """
        key = credential_of(authorization, others)
        found = self._find(key)
        if found is not None:
            return found
        _require_typed(key)
        raise _unknown()

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


def _require_typed(key: bytes) -> None:
    """A typo is refused by its check digits: no database is asked for it."""
    if is_mistyped(key.decode("latin-1")):
        raise errors.invalid_api_key("The API key is mistyped or cut off: its check digits are wrong.")


def _unknown() -> errors.GatewayError:
    return errors.invalid_api_key(
        "The API key is not known here. Check that it is a key of this gateway, not of an upstream."
    )


def require_in_force(grant: Grant) -> None:
    """Raises a 401 for a key that is none any more."""
    if grant.refused == "workspace_deleted":
        raise errors.refused_key("workspace_deleted", "The workspace of this API key was deleted.")
    if grant.refused is not None:
        raise errors.refused_key("api_key_revoked", "This API key was revoked. Use another one.")
    if grant.principal.is_over(wall_ns() // 1_000_000):
        raise errors.refused_key(
            "api_key_expired",
            "This API key has expired, or was replaced and its grace period is over. Use a new one.",
        )


def _granted(grant: Grant) -> Principal:
    """The principal of a key of the database, unless it is none for models, or not any more."""
    require_in_force(grant)
    if grant.principal.kind != "client":
        raise errors.wrong_kind_of_key()
    return grant.principal


_NOBODY: tuple[bytes, Principal | None] = (bytes(32), None)
