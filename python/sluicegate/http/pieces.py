"""A file as an answer: made while it is sent, no faster than the client takes it."""

import asyncio
from collections.abc import AsyncIterator

from sluicegate.errors import ClientGoneError, Header
from sluicegate.http.exchange import Exchange
from sluicegate.http.relay import WRITE_STALL_SECONDS, ClientWatch


async def send_pieces(exchange: Exchange, headers: list[Header], pieces: AsyncIterator[bytes]) -> None:
    """Send them. The first is waited for before the answer begins, so that what fails at once is an error.

    Raises ClientGoneError, and what `pieces` raises: then the answer has no end, which the client can tell.
    """
    first = await anext(pieces, b"")
    none: set[ClientWatch] = set()
    watch = ClientWatch(exchange.receive, (none, none), None, exchange.began)
    watch.sit()
    exchange.started = True
    try:
        start = {"status": 200, "headers": [*headers, *exchange.owed_headers()]}
        await exchange.send({"type": "http.response.start", **start})
        await _send(exchange, first)
        async for piece in pieces:
            if watch.gone:
                raise ClientGoneError
            await _send(exchange, piece)
        await exchange.send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        watch.stop()


async def _send(exchange: Exchange, piece: bytes) -> None:
    async with asyncio.timeout(WRITE_STALL_SECONDS):
        await exchange.send({"type": "http.response.body", "body": piece, "more_body": True})
