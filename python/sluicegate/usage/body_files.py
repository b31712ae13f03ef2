"""Bodies of a machine alone: an SQLite file for each workspace and day, deleted as a whole.

Blocking: call it in a thread. Several processes may write to one file.
"""

import re
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from sluicegate.storage.errors import UnavailableError
from sluicegate.usage.bodies import Body
from sluicegate.usage.model import DAY_MS, id_bytes, time_of

_BUSY_SECONDS = 5
# Names of workspaces are names of folders; one that could lead elsewhere is none.
_SAFE = re.compile(r"[a-z0-9_][a-z0-9_-]{0,63}")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS bodies (
    id BLOB PRIMARY KEY, request BLOB NOT NULL, answer BLOB NOT NULL, cut INTEGER NOT NULL
)
"""


class BodyFiles:
    """The files `acme/2026-11-25.db` of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, bodies: Iterable[Body]) -> None:
        """Keep them; one that is there stays. Raises UnavailableError."""
        files: dict[Path, list[Body]] = defaultdict(list)
        for body in bodies:
            files[self._path(body.workspace, body.id)].append(body)
        for path, of_file in files.items():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
            with _opened(path) as db:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = NORMAL")
                db.execute(_SCHEMA)
                rows = [
                    (id_bytes(b.id), zlib.compress(b.request, 1), zlib.compress(b.answer, 1), b.cut)
                    for b in of_file
                ]
                with db:
                    db.executemany("INSERT OR IGNORE INTO bodies VALUES (?, ?, ?, ?)", rows)

    def one(self, workspace: str, id: str) -> Body | None:
        """The bodies of one request. Raises ValueError for what is no id."""
        path = self._path(workspace, id)
        if not path.exists():
            return None
        with _opened(path) as db:
            query = "SELECT request, answer, cut FROM bodies WHERE id = ?"
            row = db.execute(query, (id_bytes(id),)).fetchone()
        if row is None:
            return None
        request, answer = zlib.decompress(row[0]), zlib.decompress(row[1])
        return Body(id=id, workspace=workspace, request=request, answer=answer, cut=bool(row[2]))

    def delete(self, before: Mapping[str, int]) -> int:
        """Delete what ended before a workspace's time; all of one without. Returns how many files."""
        deleted = 0
        for folder in self._folder.glob("*/"):
            limit = before.get(folder.name)
            for path in folder.glob("????-??-??.db"):
                if limit is not None and (_day(path.stem) + 1) * DAY_MS > limit:
                    continue
                for suffix in ("", "-wal", "-shm"):
                    with suppress(FileNotFoundError):
                        Path(f"{path}{suffix}").unlink()
                deleted += 1
        return deleted

    def _path(self, workspace: str, id: str) -> Path:
        name = workspace if _SAFE.fullmatch(workspace) else "_other"
        at = datetime.fromtimestamp(time_of(id_bytes(id)) / 1000, UTC)
        return self._folder / name / f"{at:%Y-%m-%d}.db"


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as db:
            yield db
    except sqlite3.Error:
        raise UnavailableError("The kept requests and answers cannot be read or written.") from None


def _day(name: str) -> int:
    return int(datetime.strptime(name, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() * 1000) // DAY_MS
