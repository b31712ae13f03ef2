"""A name server whose names change their answer with each question, as rebinding does."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from ipaddress import ip_address
from types import TracebackType
from typing import Self

# Beside the one of tests/faults; resolv.conf knows no ports, so it is 53, which only root may have.
ADDRESS = "127.53.53.54"
_KINDS = {1: 4, 28: 6}

# What each name answers, look-up by look-up; the last one for ever. Each is all addresses of one answer.
SCRIPT: dict[str, tuple[tuple[str, ...], ...]] = {
    "always.rebind.test": (("127.0.0.1",),),
    "later.rebind.test": ((), ("127.0.0.1",), ("::1",)),
    "turns.rebind.test": (("169.254.169.254",), ("127.0.0.1",), ("10.0.0.1",), ("127.0.0.1",)),
    "both.rebind.test": (("192.0.2.1", "127.0.0.1"),),
    # The public one is the first that a connector would try: it is not to be asked either.
    "mixed.rebind.test": (("203.0.113.1", "127.0.0.1", "::1"),),
    "six.rebind.test": (("::1",),),
    "mapped.rebind.test": (("::ffff:127.0.0.1",),),
    "nat64.rebind.test": (("64:ff9b::7f00:1",),),
    "sixtofour.rebind.test": (("2002:7f00:1::1",),),
    "teredo.rebind.test": (("2001:0:808:808:8000:1234:80ff:fffe",),),
    "zero.rebind.test": (("0.0.0.0",),),
    "unspecified.rebind.test": (("::",),),
    "metadata.rebind.test": (("169.254.169.254",),),
    "carrier.rebind.test": (("100.64.0.1",),),
    "local.rebind.test": (("fe80::1",),),
    "unique.rebind.test": (("fd00::1",),),
}


class RebindingServer:
    """Answers by `SCRIPT`; a name that is not in it does not exist."""

    def __enter__(self) -> Self:
        self.asked: Counter[tuple[str, int]] = Counter()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((ADDRESS, 53))
        self._thread = threading.Thread(target=self._serve, name="rebinding", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
            turns = SCRIPT.get(name, ((),))
            found = turns[min(self.asked[name, kind], len(turns) - 1)]
            self.asked[name, kind] += 1
            self._socket.sendto(_answer(query, kind, found), peer)


def _question(query: bytes) -> tuple[str, int]:
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels).lower(), int.from_bytes(query[at + 1 : at + 3])


def _answer(query: bytes, kind: int, addresses: tuple[str, ...]) -> bytes:
    end = query.index(b"\x00", 12) + 5
    wanted = [ip_address(a) for a in addresses if ip_address(a).version == _KINDS.get(kind)]
    head = query[:2] + b"\x81\x80\x00\x01" + len(wanted).to_bytes(2) + bytes(4)
    # Good for no second: nothing on the way may keep it.
    records = [
        b"\xc0\x0c" + kind.to_bytes(2) + b"\x00\x01" + bytes(4) + len(a.packed).to_bytes(2) + a.packed
        for a in wanted
    ]
    return head + query[12:end] + b"".join(records)
