"""U4: a name server that answers late or never costs only the requests that need its names."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults.client import KEY, Answer, ask, body_for
from faults.content import TEXT
from faults.name_server import ADDRESS, NameServer
from faults.pace import Pace
from faults.rig import SOON
from faults.upstream import FaultUpstream
from processes import Server, gateway

CONNECT = 1.5
SETTINGS = """
[[upstreams]]
name = "{name}"
base_url = "http://{host}:{port}/v1"
models = ["ok.{name}"]
connect_timeout = {connect}
allow_private_networks = ["127.0.0.0/8"]
"""


@dataclass(frozen=True)
class Named:
    """A gateway that asks our name server."""

    server: Server
    pace: Pace

    def ask(self, *names: str, stream: bool = False) -> list[Answer]:
        """Requests to the upstreams of these names, side by side."""

        async def all_of_them() -> list[Answer]:
            bodies = [body_for("chat", f"ok.{name}", stream=stream) for name in names]
            return await asyncio.gather(*(ask(self.server.port, "chat", body) for body in bodies))

        return asyncio.run(all_of_them())

    def seconds(self, answer: Answer) -> float:
        return self.pace.seconds(answer.began, answer.began + answer.seconds)


def has_namespaces() -> bool:
    """Whether this user may give a process a resolv.conf of its own."""
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None:
        return False
    return subprocess.run([unshare, "--mount", "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def named(upstream: FaultUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Named]:
    if not has_namespaces():
        pytest.skip("needs root and mount namespaces, to give the gateway a name server of ours")
    folder = tmp_path_factory.mktemp("names")
    resolv = folder / "resolv.conf"
    resolv.write_text(f"nameserver {ADDRESS}\noptions timeout:2 attempts:2\n")
    hosts = {"fast": "fast.test", "late": "late.test", "never": "never.test", "address": "127.0.0.1"}
    settings = "".join(
        SETTINGS.format(
            name=name, host=host, port=upstream.port, connect=CONNECT if name == "never" else 30.0
        )
        for name, host in hosts.items()
    )
    with (
        NameServer(),
        gateway(settings, folder, keys=KEY, within=with_file(resolv, "/etc/resolv.conf")) as server,
        Pace(server.port) as pace,
    ):
        yield Named(server, pace)


def with_file(file: Path, place: str) -> tuple[str, ...]:
    """A command that runs another one, which sees `file` at `place`."""
    script = f'mount --bind "{file}" {place} && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, "sh")


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
def test_a_name_without_an_answer_is_given_up_by_the_connect_clock(stream: bool, named: Named) -> None:
    (answer,) = named.ask("never", stream=stream)
    assert (answer.status, answer.error["code"]) == (502, "upstream_dns_error"), answer
    assert "never.test" not in answer.error["message"]
    assert answer.seconds >= CONNECT - 0.1
    assert named.seconds(answer) <= CONNECT + SOON


def test_a_late_answer_is_waited_for(named: Named) -> None:
    (answer,) = named.ask("late")
    assert (answer.status, answer.text) == (200, TEXT), answer


def test_others_do_not_wait_with_it(named: Named) -> None:
    """100 requests for a name that is never answered, and others by name and by address among them."""
    answers = named.ask(*["never"] * 100, *["fast", "address"] * 5)
    assert [a.status for a in answers] == [502] * 100 + [200] * 10
    for answer in answers[100:]:
        assert answer.text == TEXT
        assert named.seconds(answer) <= SOON, "it waited for the name of another upstream"
