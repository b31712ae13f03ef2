"""The real gateway with short clocks, in front of the scripted fault upstream."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator

import pytest

from faults import certificates
from faults.client import KEY
from faults.pace import Pace
from faults.rig import Rig, private_name, settings
from faults.upstream import FaultUpstream
from processes import Server, gateway


@pytest.fixture(scope="session", autouse=True)
def open_files() -> None:
    """A thousand clients need two files each, here and in the gateway, which inherits the limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    soft = 16_384 if hard == resource.RLIM_INFINITY else min(hard, 16_384)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultUpstream]:
    """The fault upstream with all its listeners."""
    assert shutil.which("openssl"), "the TLS faults need the openssl command"
    tls = certificates.make(tmp_path_factory.mktemp("tls"))
    with FaultUpstream(tls=tls) as running:
        yield running
    assert not running.crashes, f"scenarios that failed themselves: {running.crashes}"


@pytest.fixture(scope="session")
def served(upstream: FaultUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`sluicegate serve` in front of it, one worker."""
    folder = tmp_path_factory.mktemp("gateway")
    ca_file = next(iter(tmp_path_factory.getbasetemp().glob("tls*/ca.pem")))
    with gateway(settings(upstream.ports, ca_file, private_name()), folder, keys=KEY) as server:
        yield server


@pytest.fixture(scope="session")
def pace(served: Server) -> Iterator[Pace]:
    """The clock that stands still while the machine does."""
    with Pace(served.port) as running:
        yield running


@pytest.fixture(scope="session")
def rig(upstream: FaultUpstream, served: Server, pace: Pace) -> Rig:
    """All of it, with what the tests ask of it."""
    return Rig(upstream, served, pace)
