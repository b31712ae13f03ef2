"""The address of a client behind proxies that the operator trusts; nobody else's word is taken for it."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from sluicegate.settings import Settings

# The last ones of `X-Forwarded-For`: each proxy adds one, and before those a client may write what it likes.
_MOST = 32

Address = IPv4Address | IPv6Address


def read_proxies(settings: Settings) -> "TrustedProxies | None":
    """Those of the settings; None where none is trusted. Raises SettingsError."""
    networks = settings.server.trusted_proxies
    try:
        return TrustedProxies(networks) if networks else None
    except ValueError as error:
        raise settings.source.error(("server", "trusted_proxies"), str(error)) from None


class TrustedProxies:
    """Networks whose `X-Forwarded-For` is believed."""

    def __init__(self, networks: Iterable[str]) -> None:
        """Raises ValueError for what is no address and no network."""
        self._networks = [_network(text) for text in networks]

    def client(self, peer: str | None, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """Who has sent a request: `peer` is the address that is connected, None for a Unix socket.

        From the right, the first address that is not a trusted proxy's: what stands before it was written by
        whoever has that address, and may be invented.
        """
        found = None if peer is None else _address(peer)
        if found is None or not self._trusts(found):
            return peer
        for text in _said(headers):
            before = _address(text)
            if before is None:
                # Whoever wrote this is as far as one can see.
                break
            found = before
            if not self._trusts(before):
                break
        return str(found)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError(f"`{text}` is no address and no network such as 10.0.0.0/8") from None


def _said(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """The last addresses of all `X-Forwarded-For` together, the last one first."""
    values = b",".join(value for name, value in headers if name == b"x-forwarded-for")
    parts = values.decode("latin-1").rsplit(",", _MOST)[-_MOST:] if values else []
    return [part.strip(" \t") for part in reversed(parts)]


def _address(text: str) -> Address | None:
    """An address as proxies write it, some with a port; None for what is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text)
    except ValueError:
        return None
    # One machine has one address, however a socket for both families shows it.
    return getattr(found, "ipv4_mapped", None) or found
