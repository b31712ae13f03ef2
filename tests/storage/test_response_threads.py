"""A thousand conversations at once over four workers: each sees its own last turn, and no other's."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.response_threads import SETTINGS, drive, echo

from processes import gateway
from sluicegate.storage.location import Location

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(240)]

KEY = "sk-threads-test-0123456789abcdef01234"


async def test_every_thread_reads_its_own_writes(location: Location, tmp_path: Path) -> None:
    environment = {"SLUICEGATE_DATA_DIR": str(location.data_dir)}
    if location.database_url is not None:
        environment["SLUICEGATE_DATABASE_URL"] = location.database_url.reveal()
    async with echo() as port:
        settings = SETTINGS.format(port=port)
        with gateway(settings, tmp_path, keys=KEY, workers=4, environment=environment) as server:
            found = await drive(server.port, KEY, threads=1000)
    assert found.turns == 3000, found
    assert found.is_good, found
