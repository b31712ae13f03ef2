"""The keys that the master key seals: each workspace's own, the peppers, and the audit chain's."""

import os
from typing import TYPE_CHECKING, Literal

from sqlalchemy import insert, select, update

from sluicegate.clock import wall_ns
from sluicegate.ids import PLATFORM, IdSource
from sluicegate.storage import schema
from sluicegate.storage.errors import SecretsError
from sluicegate.storage.vault import KEY_BYTES, Cipher, place_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

Purpose = Literal["pepper", "audit"]

_FORMAT = 1
# Unsealed keys in memory; one of 32 bytes for each workspace whose secrets were used.
_MOST = 4096

_ids = IdSource("dk_")


class Keyring:
    """The unsealed keys of one process."""

    def __init__(self, master: bytes) -> None:
        self._master = Cipher(master)
        self._platform: dict[Purpose, dict[int, bytes]] = {"pepper": {}, "audit": {}}
        self._ciphers: dict[tuple[str, str], Cipher] = {}
        self._current: dict[str, str] = {}

    async def load(self, connection: "AsyncConnection") -> bool:
        """Unseal the gateway's own keys; False where there are none yet.

        Raises SecretsError when the master key is not the one of this database: nothing has been written
        then.
        """
        rows = (await connection.execute(select(schema.platform_keys))).all()
        for row in rows:
            try:
                opened = self._master.open(row.sealed, _platform_place(row.purpose, row.version))
            except SecretsError:
                raise SecretsError(
                    "The master key is not the one of this database. Give the right one: "
                    "SLUICEGATE_MASTER_KEY, or master.key in the data directory "
                    "(on a further machine: a copy of the first one's)."
                ) from None
            self._platform[row.purpose][row.version] = opened
        return bool(rows)

    async def create(self, connection: "AsyncConnection") -> None:
        """Make the gateway's own keys, once in the life of a database."""
        for purpose in self._platform:
            await self._add(connection, purpose, 1)

    async def rotate_pepper(self, connection: "AsyncConnection") -> int:
        """A new pepper for the keys made from now on; the returned version is theirs.

        Older ones stay valid.
        """
        version = max(self._platform["pepper"]) + 1
        await self._add(connection, "pepper", version)
        return version

    @property
    def audit_key(self) -> bytes:
        """The key of the chain of audit entries."""
        return self._platform["audit"][1]

    @property
    def peppers(self) -> dict[int, bytes]:
        """All peppers by version, the newest last."""
        return self._platform["pepper"]

    async def seal(self, connection: "AsyncConnection", workspace: str, plain: bytes, place: str) -> bytes:
        """Encrypt under the workspace's own key, which is made when it is first needed."""
        name = self._current.get(workspace) or await self._newest(connection, workspace)
        if name is None:
            name = await self._make(connection, workspace)
        cipher = await self._cipher(connection, workspace, name)
        self._current[workspace] = name
        label = name.encode()
        return bytes((_FORMAT, len(label))) + label + cipher.seal(plain, place)

    async def open(self, connection: "AsyncConnection", workspace: str, sealed: bytes, place: str) -> bytes:
        """Decrypt what `seal` made for the same workspace and place. Raises SecretsError."""
        if sealed[:1] != bytes((_FORMAT,)):
            raise SecretsError("A stored secret has a format that this program does not know.")
        end = 2 + sealed[1]
        cipher = await self._cipher(connection, workspace, sealed[2:end].decode("ascii", errors="replace"))
        return cipher.open(sealed[end:], place)

    async def reseal(self, connection: "AsyncConnection", master: bytes) -> int:
        """Seal every key anew under another master key, in the caller's transaction; returns how many.

        The secrets themselves stay as they are. Give the gateway the new master key once this is committed.
        """
        other = Cipher(master)
        for row in (await connection.execute(select(schema.platform_keys))).all():
            place = _platform_place(row.purpose, row.version)
            table = schema.platform_keys
            await connection.execute(
                update(table)
                .where(table.c.purpose == row.purpose, table.c.version == row.version)
                .values(sealed=other.seal(self._master.open(row.sealed, place), place))
            )
        rows = (await connection.execute(select(schema.data_keys))).all()
        for row in rows:
            place = _data_place(row.id, row.workspace)
            await connection.execute(
                update(schema.data_keys)
                .where(schema.data_keys.c.id == row.id)
                .values(sealed=other.seal(self._master.open(row.sealed, place), place))
            )
        self._master = other
        return len(rows)

    def forget(self) -> None:
        """Drop what may have been made in a transaction that was rolled back."""
        self._current.clear()
        self._ciphers.clear()

    async def _add(self, connection: "AsyncConnection", purpose: Purpose, version: int) -> None:
        key = os.urandom(KEY_BYTES)
        sealed = self._master.seal(key, _platform_place(purpose, version))
        row = {"purpose": purpose, "version": version, "sealed": sealed, "created_at": wall_ns() // 1_000_000}
        await connection.execute(insert(schema.platform_keys).values(row))
        self._platform[purpose][version] = key

    async def _newest(self, connection: "AsyncConnection", workspace: str) -> str | None:
        table = schema.data_keys
        query = select(table.c.id).where(table.c.workspace == workspace).order_by(table.c.id.desc()).limit(1)
        found: str | None = (await connection.execute(query)).scalar()
        return found

    async def _make(self, connection: "AsyncConnection", workspace: str) -> str:
        name, key = _ids.next(), os.urandom(KEY_BYTES)
        sealed = self._master.seal(key, _data_place(name, workspace))
        row = {"id": name, "workspace": workspace, "sealed": sealed, "created_at": wall_ns() // 1_000_000}
        await connection.execute(insert(schema.data_keys).values(row))
        return name

    async def _cipher(self, connection: "AsyncConnection", workspace: str, name: str) -> Cipher:
        cipher = self._ciphers.get((workspace, name))
        if cipher is not None:
            return cipher
        table = schema.data_keys
        query = select(table.c.sealed).where(table.c.id == name, table.c.workspace == workspace)
        sealed = (await connection.execute(query)).scalar()
        if sealed is None:
            raise SecretsError("A stored secret belongs to a key that is not there: it was altered or moved.")
        if len(self._ciphers) >= _MOST:
            self.forget()
        cipher = Cipher(self._master.open(sealed, _data_place(name, workspace)))
        self._ciphers[workspace, name] = cipher
        return cipher


def _platform_place(purpose: str, version: int) -> str:
    return place_of("platform_keys", f"{purpose}.{version}", "sealed", PLATFORM)


def _data_place(name: str, workspace: str) -> str:
    return place_of("data_keys", name, "sealed", workspace)
