"""A process that applies one configuration file after the other, and says when each is done."""

from __future__ import annotations

import asyncio
from multiprocessing.connection import Connection
from pathlib import Path

from sluicegate.config.apply import carry_out
from sluicegate.config.reader import read_file
from sluicegate.config.secrets import SecretSource
from sluicegate.config.step import Options
from sluicegate.storage.database import Database
from sluicegate.storage.location import Location
from sluicegate.storage.transaction import Actor

SECRET = "upstream-canary-0123456789"
# The workspace that every file changes, beside the new one that it makes.
SHARED = "shared"
KEYS = 3


def file_of(number: int) -> str:
    """A new workspace with all that one can have, and a change of the shared one."""
    keys = "".join(f'[[workspace.key]]\nname = "k{index}"\n' for index in range(KEYS))
    return f"""
[[workspace]]
id = "{SHARED}"
max_tokens = {number + 1}

[[workspace]]
id = "w{number}"
context_window = "40%"

[[workspace.upstream]]
name = "local"
base_url = "http://127.0.0.1:8000/v1"
api_key = "env:KEY"

[[workspace.assistant]]
name = "coder"
model = ["local/m"]
system_prompt = "{"x" * 2000}"

{keys}
"""


def apply_files(connection: Connection, location: Location, first: int) -> None:
    """Apply files from this number on; send the number of each that is committed."""
    asyncio.run(_apply(connection, location, first))


async def _apply(connection: Connection, location: Location, first: int) -> None:
    database = await Database.open(location)
    connection.send("ready")
    number = first
    while True:
        file, source = read_file(None, file_of(number).encode(), "gateway.toml")
        options = Options(source=source, secrets=SecretSource(Path(), {"KEY": SECRET}))
        async with database.change(Actor("cli:crew")) as change:
            await carry_out(change, file, options, None)
        connection.send(number)
        number += 1
