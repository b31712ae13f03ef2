"""The gateway under test and the fault upstream together: settings, and the questions that tests ask."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from faults.cases import cases
from faults.steps import BY_NAME
from faults.upstream import Connection, FaultUpstream
from processes import Server

UPSTREAM_KEY = "sk-upstream-secret-9876543210"
# Short, so that the tests are quick, but not so short that a busy machine makes a timeout of its own.
CONNECT, FIRST_EVENT, IDLE, TOTAL = 1.5, 2.5, 1.5, 4.0
BODY_TIMEOUT = 2.0
MAX_BODY = 2 * 1024 * 1024
MAX_ANSWER = 2 * 1024 * 1024
# The tables' «within a second».
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
    elsewhere = (*PATIENT, "ok-neighbour")
    tabled = {case.model for case in cases()} | set(BY_NAME)
    scripted = sorted(n for n in tabled if n not in elsewhere and not n.startswith("at-"))
    clocks = f"first_event_timeout = {FIRST_EVENT}\nidle_timeout = {IDLE}\ntotal_timeout = {TOTAL}\n"
    text = SERVER + _entry(
        "faults",
        main,
        [*scripted, "replayed", "u22-429-seconds.again"],
        clocks,
        'aliases = { "replayed-alias" = "replayed" }',
        f"max_answer_bytes = {MAX_ANSWER}",
    )
    text += _entry("neighbour", main, ["ok-neighbour"])
    text += _entry("patient", main, PATIENT, "max_answer_bytes = 1099511627776")
    for name in ("closing", "silent", "refused", "blackhole"):
        text += _entry(name, f"http://127.0.0.1:{ports[name]}/v1", [f"at-{name}"], clocks)
    text += _entry("nxdomain", "http://no-such-host.invalid/v1", ["at-nxdomain"], clocks)
    if private_name:
        text += _entry("private", f"http://{private_name}:{ports['canary']}/v1", ["at-private"], clocks)
    for name in (name for name in ports if name.startswith("tls-")):
        origin = f"https://127.0.0.1:{ports[name]}/v1"
        text += _entry(name, origin, [f"at-{name}"], clocks, f'ca_file = "{ca_file}"')
    text += _entry("tls-system", f"https://127.0.0.1:{ports['tls-good']}/v1", ["at-tls-system"], clocks)
    text += _entry("tls-silent", f"https://127.0.0.1:{ports['silent']}/v1", ["at-tls-silent"], clocks)
    text += _entry("tls-plain", f"https://127.0.0.1:{ports['main']}/v1", ["at-tls-plain"], clocks)
    return text


def _entry(name: str, base_url: str, models: list[str], *more: str) -> str:
    lines = [
        "\n[[upstreams]]",
        f'name = "{name}"',
        f'base_url = "{base_url}"',
        f'api_key = "{UPSTREAM_KEY}"',
        f"models = {json.dumps(models)}",
        f"connect_timeout = {CONNECT}",
        *more,
    ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Rig:
    """Gateway and upstream."""

    upstream: FaultUpstream
    server: Server

    @property
    def port(self) -> int:
        """Of the gateway."""
        return self.server.port

    def connections(self, nonce: str) -> list[Connection]:
        """The upstream connections that carried requests with this `user`."""
        return self.upstream.records.of(nonce)

    def wait_closed(self, nonce: str, within: float = SOON) -> bool:
        """Whether all of those are gone within so many seconds from now."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if all(c.closed is not None for c in self.connections(nonce)):
                return True
            time.sleep(0.01)
        return False

    def worker_rss(self) -> int:
        """Bytes of memory of the gateway's largest process."""
        return max(_rss(pid) for pid in _family(self.server.process.pid))


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    below = [int(text) for text in children.read_text().split()] if children.exists() else []
    return [pid, *(found for child in below for found in _family(child))]


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
