"""A name server on a loopback address of its own: names that answer at once, late, or never."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Self

# All of 127.0.0.0/8 is this machine. resolv.conf knows no ports, so it is 53, which only root may have.
ADDRESS = "127.53.53.53"
LATE = 0.7
IPV4 = 1
TTL = 60


class NameServer:
    """`never.test` is never answered, `late.test` after 0.7 s, all others at once: with 127.0.0.1."""

    def __enter__(self) -> Self:
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((ADDRESS, 53))
        self._thread = threading.Thread(target=self._serve, name="name-server", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Wakes the thread, which close() alone would not.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (ADDRESS, 53))
        self._thread.join(15)
        self._socket.close()

    def _serve(self) -> None:
        while query_and_peer := self._socket.recvfrom(4096):
            query, peer = query_and_peer
            if not query:
                return
            name, kind = _question(query)
            self.asked.append(name)
            if name.startswith("late."):
                threading.Timer(LATE, self._socket.sendto, (_answer(query, kind), peer)).start()
            elif not name.startswith("never."):
                self._socket.sendto(_answer(query, kind), peer)


def _question(query: bytes) -> tuple[str, int]:
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels).lower(), int.from_bytes(query[at + 1 : at + 3])


def _answer(query: bytes, kind: int) -> bytes:
    """127.0.0.1 for IPv4, and that there is nothing for all else."""
    end = query.index(b"\x00", 12) + 5
    found = kind == IPV4
    # Response, recursion desired and available, no error; one question, one or no answer.
    head = query[:2] + b"\x81\x80\x00\x01" + (b"\x00\x01" if found else b"\x00\x00") + bytes(4)
    record = b"\xc0\x0c\x00\x01\x00\x01" + TTL.to_bytes(4) + b"\x00\x04" + socket.inet_aton("127.0.0.1")
    return head + query[12:end] + (record if found else b"")
