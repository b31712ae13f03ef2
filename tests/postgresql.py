"""A real PostgreSQL for tests: one cluster for the whole run, one database for each test."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
from psycopg import sql

SERVICES = Path(__file__).parents[1] / "scripts" / "services"
_numbers = count(1)


@dataclass(frozen=True)
class Cluster:
    """A server that listens on a Unix socket in `folder`."""

    folder: Path

    def url(self, database: str) -> str:
        """The URL of one of its databases."""
        return f"postgresql://sluicegate@/{database}?host={self.folder}"

    def create(self, template: str = "template1") -> str:
        """A new database, a copy of `template`; its name."""
        name = f"test_{next(_numbers)}"
        copy = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        self.run(copy.format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def run(self, statement: sql.Composed | sql.SQL) -> None:
        """One statement outside of a transaction."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def running() -> Iterator[Cluster]:
    """A cluster until the block ends. A missing PostgreSQL is a failure: `scripts/services` installs it."""
    # Short: the path of a Unix socket has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="sluicegate-pg-", dir="/tmp"))
    try:
        started = subprocess.run(
            [SERVICES, "start", folder], capture_output=True, text=True, timeout=120, check=False
        )
        assert started.returncode == 0, f"PostgreSQL does not start:\n{started.stderr}"
        yield Cluster(folder)
    finally:
        subprocess.run([SERVICES, "stop", folder], capture_output=True, timeout=60, check=False)
        shutil.rmtree(folder, ignore_errors=True)
