"""The gateway under test and the fault upstream together: settings, and the questions that tests ask."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from faults.cases import cases
from faults.pace import LONGEST, Pace
from faults.steps import BY_NAME
from faults.upstream import Connection, FaultUpstream
from processes import Server

UPSTREAM_KEY = "sk-upstream-secret-9876543210"
# A clock is short only where it is what ends the scenario: a machine that stands still for some seconds must
# make no timeout that the upstream did not make.
SHORT, SHORT_TOTAL, AMPLE = 1.5, 4.0, 30.0
# A plain answer that drips: each of its parts starts the idle clock anew, so only the total clock ends it.
DRIP_TOTAL = 8.0
# Which clocks end which scenarios. A plain answer that stalls after its head meets the idle clock.
ENDED_BY = {
    "first-event": ("u8-silence", "u11-drip-head", "u24-500-stall", "u34-stall-first", "u35-comments-first"),
    "idle": ("u34-stall-mid", "u35-slow-loris", "u35-comments"),
    "total": ("u36-endless-slow",),
}
BODY_TIMEOUT = 2.0
MAX_BODY = 2 * 1024 * 1024
MAX_ANSWER = 2 * 1024 * 1024
# The tables' «within a second», on the clock of `pace.py`.
SOON = 1.0

SERVER = f"""
[server]
workers = 1
max_body_bytes = {MAX_BODY}
body_timeout = {BODY_TIMEOUT}
body_min_rate = 1024
drain_timeout = 2.0
"""
# Those that must not end by a clock while a test looks at something else.
PATIENT = [name for name in BY_NAME if name.startswith(("c1-", "c2-"))]


def settings(ports: Mapping[str, int], ca_file: Path, private_name: str | None) -> str:
    """The gateway's TOML: one entry for each way to reach the upstream."""
    main = f"http://127.0.0.1:{ports['main']}/v1"
    by_clock = {name for names in ENDED_BY.values() for name in names}
    elsewhere = {*PATIENT, *by_clock, "ok-neighbour"}
    tabled = {case.model for case in cases()} | set(BY_NAME)
    scripted = sorted(n for n in tabled if n not in elsewhere and not n.startswith("at-"))
    cap = f"max_answer_bytes = {MAX_ANSWER}"
    # `given` and `replayed` are for scenarios that a test adds.
    text = SERVER + _entry(
        "faults",
        main,
        [*scripted, "given", "replayed", "u22-429-seconds.again"],
        _clocks(),
        'aliases = { "replayed-alias" = "replayed" }',
        cap,
    )
    text += _entry(
        "first-event",
        main,
        ENDED_BY["first-event"],
        _clocks(first_event=SHORT, idle=SHORT, total=DRIP_TOTAL),
        cap,
    )
    text += _entry("idle", main, ENDED_BY["idle"], _clocks(idle=SHORT, total=DRIP_TOTAL), cap)
    text += _entry("total", main, ENDED_BY["total"], _clocks(total=SHORT_TOTAL), cap)
    text += _entry("neighbour", main, ["ok-neighbour"])
    text += _entry("patient", main, PATIENT, "max_answer_bytes = 1099511627776")
    return text + _connections(ports, ca_file, private_name)


def _connections(ports: Mapping[str, int], ca_file: Path, private_name: str | None) -> str:
    """Upstreams that are hard to reach."""
    text = ""
    for name in ("closing", "refused"):
        text += _entry(name, f"http://127.0.0.1:{ports[name]}/v1", [f"at-{name}"], _clocks())
    silent = f"http://127.0.0.1:{ports['silent']}/v1"
    text += _entry("silent", silent, ["at-silent"], _clocks(first_event=SHORT))
    blackhole = f"http://127.0.0.1:{ports['blackhole']}/v1"
    text += _entry("blackhole", blackhole, ["at-blackhole"], _clocks(connect=SHORT))
    text += _entry("nxdomain", "http://no-such-host.invalid/v1", ["at-nxdomain"], _clocks(connect=SHORT))
    if private_name:
        text += _entry("private", f"http://{private_name}:{ports['canary']}/v1", ["at-private"], _clocks())
    for name in (name for name in ports if name.startswith("tls-")):
        origin = f"https://127.0.0.1:{ports[name]}/v1"
        text += _entry(name, origin, [f"at-{name}"], _clocks(), f'ca_file = "{ca_file}"')
    text += _entry("tls-system", f"https://127.0.0.1:{ports['tls-good']}/v1", ["at-tls-system"], _clocks())
    tls_silent = f"https://127.0.0.1:{ports['silent']}/v1"
    text += _entry("tls-silent", tls_silent, ["at-tls-silent"], _clocks(connect=SHORT))
    # Waits for the end of a request's head, as many servers do when TLS comes to a plain port.
    tls_plain = f"https://127.0.0.1:{ports['main']}/v1"
    return text + _entry("tls-plain", tls_plain, ["at-tls-plain"], _clocks(connect=SHORT))


def _clocks(
    *, connect: float = AMPLE, first_event: float = AMPLE, idle: float = AMPLE, total: float = AMPLE
) -> str:
    return (
        f"connect_timeout = {connect}\nfirst_event_timeout = {first_event}\n"
        f"idle_timeout = {idle}\ntotal_timeout = {total}"
    )


def _entry(name: str, base_url: str, models: Sequence[str], *more: str) -> str:
    lines = [
        "\n[[upstreams]]",
        f'name = "{name}"',
        f'base_url = "{base_url}"',
        f'api_key = "{UPSTREAM_KEY}"',
        f"models = {json.dumps(models)}",
        *more,
    ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Rig:
    """Gateway, upstream, and the clock that both are judged by."""

    upstream: FaultUpstream
    server: Server
    pace: Pace

    @property
    def port(self) -> int:
        """Of the gateway."""
        return self.server.port

    def connections(self, nonce: str) -> list[Connection]:
        """The upstream connections that carried requests with this `user`."""
        return self.upstream.records.of(nonce)

    def wait_closed(self, nonce: str, within: float = SOON) -> bool:
        """Whether all of those are gone within so many seconds from now; returns as soon as they are."""
        began = time.monotonic()
        while any(c.closed is None for c in self.connections(nonce)):
            if time.monotonic() > began + LONGEST:
                return False
            time.sleep(0.01)
        last = max((c.closed or began for c in self.connections(nonce)), default=began)
        return self.pace.seconds(began, last) <= within

    def worker_files(self) -> int:
        """Open files of the gateway's process with the most."""
        return max(_files(pid) for pid in _family(self.server.process.pid))

    def worker_rss(self) -> int:
        """Bytes of memory of the gateway's largest process."""
        return max(_rss(pid) for pid in _family(self.server.process.pid))


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    below = [int(text) for text in children.read_text().split()] if children.exists() else []
    return [pid, *(found for child in below for found in _family(child))]


def _files(pid: int) -> int:
    folder = Path(f"/proc/{pid}/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def _rss(pid: int) -> int:
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)


def private_name() -> str | None:
    """A host name, not localhost, that leads to this machine: an innocent name with a private address."""
    for name in (socket.gethostname(), "ip6-localhost", "ip6-loopback", *_hosts()):
        try:
            found = {info[4][0] for info in socket.getaddrinfo(name, None)}
        except OSError:
            continue
        if name != "localhost" and found and found <= {"127.0.0.1", "127.0.1.1", "::1"}:
            return name
    return None


def _hosts() -> list[str]:
    lines = Path("/etc/hosts").read_text().splitlines() if Path("/etc/hosts").exists() else []
    return [name for line in lines for name in line.split("#")[0].split()[1:]]
