"""The management API in a process of its own: `python serve.py DATA_DIR PORT LOG`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from rig import mounted

from sluicegate.engine import Engine
from sluicegate.records import Records
from sluicegate.storage.database import Database
from sluicegate.storage.location import Location
from sluicegate.telemetry.logs import Log


@asynccontextmanager
async def running(folder: Path, log: Log) -> AsyncIterator[Any]:
    database, engine = await Database.open(Location(data_dir=folder)), Engine()
    try:
        yield mounted(Records(database), engine, log)
    finally:
        await engine.close()
        await database.close()


def main(folder: str, port: str, lines: str) -> None:
    """Serve until a signal comes."""
    log = Log(Path(lines).open("w"), access=True)  # noqa: SIM115 (open as long as the process)

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await state["app"](scope, receive, send)
            return
        await receive()
        async with running(Path(folder), log) as state["app"]:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        log.close()
        await send({"type": "lifespan.shutdown.complete"})

    state: dict[str, Any] = {}
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", lifespan="on")


if __name__ == "__main__":
    main(*sys.argv[1:])
