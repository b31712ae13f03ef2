"""Secrets at rest: bound to their place, and a wrong or missing master key writes nothing."""

from __future__ import annotations

import base64
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.settings import Secret
from sluicegate.storage import errors, vault
from sluicegate.storage.database import Database
from sluicegate.storage.location import Location
from sluicegate.storage.transaction import SYSTEM
from sluicegate.upstreams import store as upstreams
from sluicegate.upstreams.record import Credentials, UpstreamDraft
from sluicegate.workspaces import store as workspaces
from sluicegate.workspaces.model import WorkspaceDraft

OTHER = base64.b64encode(bytes(range(32))).decode()


def snapshot(folder: Path) -> dict[str, str]:
    """Every file but the mapped one and what SQLite keeps while it is open."""
    left_out = ("shared-1.map", "sluicegate.db-shm", "sluicegate.db-wal")
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name not in left_out
    }


@given(st.binary(max_size=200), st.text(max_size=20), st.text(max_size=20))
def test_what_is_sealed_opens_in_its_place_only(plain: bytes, one: str, other: str) -> None:
    cipher = vault.Cipher(bytes(32))
    place = vault.place_of("t", one, "c", "w", "http://h:1")
    sealed = cipher.seal(plain, place)
    assert cipher.open(sealed, place) == plain
    assert sealed != cipher.seal(plain, place)
    wrong = [vault.place_of("t", one, "c", "w"), vault.place_of("t", one + "|c", "", "w", "http://h:1")]
    if one != other:
        wrong.append(vault.place_of("t", other, "c", "w", "http://h:1"))
    for elsewhere in wrong:
        with pytest.raises(errors.SecretsError):
            cipher.open(sealed, elsewhere)
    with pytest.raises(errors.SecretsError):
        vault.Cipher(b"x" * 32).open(sealed, place)


@pytest.mark.parametrize("cut", [0, 1, 12, 27])
def test_what_was_cut_off_does_not_open(cut: int) -> None:
    cipher = vault.Cipher(bytes(32))
    with pytest.raises(errors.SecretsError):
        cipher.open(cipher.seal(b"", "p")[:cut], "p")


def test_a_master_key_is_made_once(tmp_path: Path) -> None:
    location = Location(data_dir=tmp_path)
    assert vault.read_master_key(location) is None
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: vault.make_master_key(location), range(8)))
    assert made == {vault.read_master_key(location)}
    assert [path.name for path in tmp_path.iterdir()] == ["master.key"]
    assert location.master_key_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "short", OTHER[:-4], "g" * 64, "file:/does/not/exist"])
def test_what_is_no_master_key(tmp_path: Path, text: str) -> None:
    with pytest.raises(errors.SecretsError) as caught:
        vault.read_master_key(Location(data_dir=tmp_path, master_key=Secret(text)))
    assert not text or text.startswith("file:") or text not in str(caught.value)


def test_a_master_key_is_read(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(OTHER + "\n")
    file.chmod(0o600)
    for given_text in (OTHER, bytes(range(32)).hex(), f"file:{file}"):
        location = Location(data_dir=tmp_path, master_key=Secret(given_text))
        assert vault.read_master_key(location) == bytes(range(32))
    file.chmod(0o640)
    with pytest.raises(errors.SecretsError, match="chmod 600"):
        vault.read_master_key(location)


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["another", "missing", "malformed", "open to others"])
async def test_a_wrong_master_key_writes_nothing(location: Location, how: str) -> None:
    if how == "another":
        location = msgspec.structs.replace(location, master_key=Secret(OTHER))
    elif how == "missing":
        location.master_key_file.unlink()
    elif how == "malformed":
        location.master_key_file.write_text("rubbish")
    else:
        location.master_key_file.chmod(0o644)
    before = snapshot(location.data_dir)
    with pytest.raises(errors.SecretsError, match="master key"):
        await Database.open(location)
    assert snapshot(location.data_dir) == before


@pytest.mark.asyncio
async def test_all_keys_can_be_sealed_anew(database: Database) -> None:
    secrets = Credentials(api_key=Secret("canary"))
    draft = UpstreamDraft(name="u", base_url="http://h/v1")
    async with database.change(SYSTEM) as change:
        await workspaces.create(change, "acme", WorkspaceDraft(name="acme"))
        made = await upstreams.create(change, "acme", draft, secrets)
    new = os.urandom(32)
    async with database.change(SYSTEM) as change:
        assert await database.keyring.reseal(change.connection, new) == 1
    with pytest.raises(errors.SecretsError):
        await Database.open(database.location)
    text = Secret(base64.b64encode(new).decode())
    again = await Database.open(msgspec.structs.replace(database.location, master_key=text))
    async with again.read() as view:
        assert await upstreams.credentials_of(view, "acme", made.id) == secrets
    await again.close()


@pytest.mark.asyncio
async def test_a_key_of_an_undone_change_is_forgotten(database: Database) -> None:
    draft = UpstreamDraft(name="u", base_url="http://h/v1")
    async with database.change(SYSTEM) as change:
        await workspaces.create(change, "acme", WorkspaceDraft(name="acme"))
    with pytest.raises(RuntimeError):
        async with database.change(SYSTEM) as change:
            await upstreams.create(change, "acme", draft, Credentials(api_key=Secret("a")))
            raise RuntimeError
    async with database.change(SYSTEM) as change:
        made = await upstreams.create(change, "acme", draft, Credentials(api_key=Secret("b")))
    again = await Database.open(database.location)
    async with again.read() as view:
        found = await upstreams.credentials_of(view, "acme", made.id)
    assert found.api_key == Secret("b")
    await again.close()
