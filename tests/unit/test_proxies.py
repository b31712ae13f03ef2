"""Whose word is taken for the address of a client: that of trusted proxies, and of nobody else."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.http.envelope import Envelope
from sluicegate.http.exchange import exchange_of
from sluicegate.http.proxies import TrustedProxies, read_proxies
from sluicegate.settings import ServerConfig, Settings, SettingsError, load

PROXY = "10.0.0.9"
TRUSTED = TrustedProxies(["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"])


def client(peer: str | None, *said: str) -> str | None:
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in said]
    return TRUSTED.client(peer, [(b"host", b"gateway"), *headers])


@pytest.mark.parametrize(
    ("peer", "said", "found"),
    [
        # Who is no proxy may say what it likes.
        ("203.0.113.5", ["198.51.100.1"], "203.0.113.5"),
        ("203.0.113.5", [], "203.0.113.5"),
        (None, ["198.51.100.1"], None),
        (PROXY, [], PROXY),
        (PROXY, ["198.51.100.1"], "198.51.100.1"),
        ("192.0.2.1", ["198.51.100.1"], "198.51.100.1"),
        ("192.0.2.2", ["198.51.100.1"], "192.0.2.2"),
        ("2001:db8::1", ["2001:db9::7"], "2001:db9::7"),
        ("::ffff:10.0.0.9", ["198.51.100.1"], "198.51.100.1"),
        # Invented by the client before the proxy has added who it is.
        (PROXY, ["1.2.3.4, 198.51.100.1"], "198.51.100.1"),
        (PROXY, ["10.1.1.1, 198.51.100.1"], "198.51.100.1"),
        (PROXY, ["1.2.3.4", "198.51.100.1"], "198.51.100.1"),
        # Several proxies in a row.
        (PROXY, ["1.2.3.4, 198.51.100.1, 10.2.2.2"], "198.51.100.1"),
        (PROXY, ["198.51.100.1", "10.2.2.2,10.3.3.3"], "198.51.100.1"),
        # From within.
        (PROXY, ["10.1.1.1"], "10.1.1.1"),
        (PROXY, ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        # With ports, and what is no address.
        (PROXY, ["198.51.100.1:4711"], "198.51.100.1"),
        (PROXY, ["[2001:db9::7]:4711"], "2001:db9::7"),
        (PROXY, ["unknown"], PROXY),
        (PROXY, ["198.51.100.1, _hidden, 10.2.2.2"], "10.2.2.2"),
        (PROXY, ["", " , "], PROXY),
        (PROXY, ["caf\xe9"], PROXY),
    ],
)
def test_the_last_address_that_is_no_proxy_counts(
    peer: str | None, said: list[str], found: str | None
) -> None:
    assert client(peer, *said) == found


@given(st.lists(st.text(st.characters(max_codepoint=255), max_size=40), max_size=60))
def test_what_a_client_invents_changes_nothing(invented: list[str]) -> None:
    assert client(PROXY, *invented, "198.51.100.1") == "198.51.100.1"
    assert client(PROXY, ",".join([*invented, "198.51.100.1", "10.2.2.2"])) == "198.51.100.1"
    assert client("203.0.113.5", *invented) == "203.0.113.5"
    # Whatever is there, it is an address.
    found = client(PROXY, *invented)
    assert found is not None
    assert str(ip_address(found)) == found


def test_a_long_row_is_read_from_its_end() -> None:
    assert client(PROXY, "198.51.100.1," + "10.1.1.1," * 100_000 + "10.2.2.2") == "10.1.1.1"
    assert client(PROXY, "10.1.1.1," * 100_000 + "198.51.100.1,10.2.2.2") == "198.51.100.1"


async def told(proxies: TrustedProxies | None) -> str | None:
    """What the application is told of a request that came over a proxy."""
    seen: list[str | None] = []

    async def app(scope: dict[str, Any], _receive: Any, _send: Any) -> None:
        seen.append(exchange_of(scope).client)

    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "client": (PROXY, 5)}
    scope["headers"] = [(b"x-forwarded-for", b"198.51.100.1")]
    await Envelope(app, app, lambda *_: None, proxies)(scope, None, None)
    return seen[0]


@pytest.mark.asyncio
async def test_without_trusted_proxies_the_connection_counts() -> None:
    assert await told(None) == PROXY
    assert await told(TRUSTED) == "198.51.100.1"


def test_they_are_settings() -> None:
    assert read_proxies(Settings()) is None
    environment = {"SLUICEGATE_TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.1"}
    assert load(None, environment).server.trusted_proxies == ("10.0.0.0/8", "192.0.2.1")
    for wrong in ("10.0.0.1/8", "nginx", ""):
        with pytest.raises(SettingsError, match=r"server.trusted_proxies: `.*` is no address and no network"):
            read_proxies(Settings(server=ServerConfig(trusted_proxies=(wrong,))))
