"""One connection to Redis or Valkey, for one script: an answer within the deadline, or an error."""

import asyncio
from pathlib import Path
from typing import Any

from redis.asyncio.connection import ConnectionPool
from redis.exceptions import NoScriptError, RedisError

from sluicegate.storage.errors import LinkError

LIMITS = (Path(__file__).parent / "limits.lua").read_text(encoding="utf-8")
# To connect, and to say who we are.
CONNECT_SECONDS = 1.0
# A timer that fires so late tells of this process, and not of the server.
LATE_SECONDS = 0.02


class RedisLink:
    """Belongs to one task, which calls one after another; what was cut off leaves no connection behind."""

    def __init__(self, url: str, script: str = LIMITS) -> None:
        """Opens nothing. Raises ValueError for a URL that is none, TypeError for unknown options in it."""
        self._pool: ConnectionPool = ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=CONNECT_SECONDS,
            driver_info=None,
        )
        self._pool.make_connection()  # type: ignore[no-untyped-call]
        self._script = script
        self._digest = ""
        self._connection: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    async def open(self) -> None:
        """Connect anew. Raises LinkError."""
        self.close()
        self._is_over = False
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                self._connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
                await self._connection.connect()
                await self._load()
        except (RedisError, OSError) as error:
            raise self._failed(error) from None
        except BaseException:
            self.close()
            raise

    async def call(self, payload: bytes, seconds: float) -> bytes:
        """The script's answer. Raises LinkError; after that the connection is closed."""
        self._begin(seconds)
        try:
            try:
                return await self._ask("EVALSHA", self._digest, 0, payload)
            except NoScriptError:
                # It has started anew, or somebody has emptied it.
                await self._load()
                return await self._ask("EVALSHA", self._digest, 0, payload)
        except (RedisError, OSError) as error:
            raise self._failed(error) from None
        except BaseException:
            self.close()
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _begin(self, seconds: float) -> None:
        """Close the connection after so long, which ends whoever reads from it.

        Not by a cancellation: where this loop itself stood still, the answer is there when it goes on, and
        must not be thrown away.
        """
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        self._is_over = False

        def end() -> None:
            self._is_over = True
            self.close()

        def look() -> None:
            if loop.time() - due > LATE_SECONDS:
                self._timer = loop.call_later(seconds, end)
            else:
                end()

        self._timer = loop.call_at(due, look)

    def close(self) -> None:
        """Drop the connection, whatever is under way on it: an answer that comes late is nobody's."""
        connection, self._connection = self._connection, None
        # Its own way to close waits, with a deadline of its own.
        writer = None if connection is None else connection._writer
        if writer is not None:
            connection._reader = connection._writer = None
            writer.transport.abort()

    async def _load(self) -> None:
        self._digest = (await self._ask("SCRIPT LOAD", self._script)).decode()

    async def _ask(self, *command: Any) -> bytes:
        connection = self._connection
        if connection is None:
            raise LinkError("not_connected")
        await connection.send_command(*command)
        answer = await connection.read_response(disable_decoding=True)
        if not isinstance(answer, bytes):
            raise LinkError("unexpected_answer")
        return answer

    def _failed(self, error: RedisError | OSError) -> LinkError:
        self.close()
        if self._is_over or isinstance(error, TimeoutError):
            return LinkError("no_answer_in_time")
        # Such as ConnectionError, AuthenticationError, ReadOnlyError, MovedError.
        return LinkError(type(error).__name__)
