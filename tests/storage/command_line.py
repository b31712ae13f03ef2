"""Runs commands on a database, and reads what they say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from processes import clear_environment
from sluicegate.cli import app
from sluicegate.keys import store as keys
from sluicegate.storage.database import Database
from sluicegate.storage.location import Location

Cli = Callable[..., Result]


def command_line(location: Location, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command on the database of `location`."""
    clear_environment(monkeypatch)
    monkeypatch.setenv("SLUICEGATE_DATA_DIR", str(location.data_dir))
    if location.database_url is not None:
        monkeypatch.setenv("SLUICEGATE_DATABASE_URL", location.database_url.reveal())

    def run(*arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(app, list(arguments), **options)

    return run


def good(result: Result) -> str:
    """What a command that did its work said on standard output."""
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(result: Result) -> str:
    """The one line of a refusal."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line.removeprefix("sluicegate: ")


def looked_up(location: Location, secret: str) -> Any:
    async def look() -> Any:
        database = await Database.open(location)
        async with database.read() as view:
            found = await keys.look_up(view, secret)
        await database.close()
        return found

    return asyncio.run(look())
