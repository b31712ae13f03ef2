"""Base URLs that lead to where a tenant has no business, written in every way that a parser may take."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

# What must not be reached: this machine, private networks, metadata services, carriers, multicast.
INSIDE = (
    "127.0.0.1",
    "127.1.2.3",
    "127.255.255.254",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
)
IPV6 = (
    "::1",
    "::",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "100::1",
    "0:0:0:0:0:0:0:1",
    "::0001",
)


def written(address: str) -> Iterator[str]:
    """One IPv4 address as hosts: plain, as numbers of every base, short, and with what confuses parsers."""
    number = int(IPv4Address(address))
    a, b, c, d = address.split(".")
    yield address
    yield f"{address}."
    yield str(number)
    yield f"0x{number:x}"
    yield f"0X{number:08X}"
    yield f"0{number:o}"
    yield ".".join(f"0{int(part):o}" for part in (a, b, c, d))
    yield ".".join(f"0x{int(part):x}" for part in (a, b, c, d))
    yield f"{a}.{b}.{int(c) * 256 + int(d)}"
    yield f"{a}.{number & 0xFFFFFF}"
    yield f"{a}.{b}.{c}.0x{int(d):x}"
    yield f"00{a}.{b}.{c}.{d}"
    yield f"{a}%2e{b}%2e{c}%2e{d}"
    yield f"{a}。{b}。{c}。{d}"
    yield address.translate(str.maketrans("0123456789", "０１２３４５６７８９"))  # noqa: RUF001
    yield str(number + (1 << 32))


def wrapped(address: str) -> Iterator[str]:
    """IPv6 addresses with this IPv4 address inside."""
    number = int(IPv4Address(address))
    hi, lo = number >> 16, number & 0xFFFF
    yield f"::ffff:{address}"
    yield f"::ffff:{hi:x}:{lo:x}"
    yield f"::ffff:0:{hi:x}:{lo:x}"
    yield f"64:ff9b::{hi:x}:{lo:x}"
    yield f"64:ff9b:1::{hi:x}:{lo:x}"
    yield f"2002:{hi:x}:{lo:x}::1"
    yield f"2001:0:0808:0808:8000:1234:{hi ^ 0xFFFF:x}:{lo ^ 0xFFFF:x}"
    if number > 1:
        yield f"::{address}"


def names() -> Iterator[str]:
    """Names that this machine, or a resolver, knows as itself."""
    yield from ("localhost", "LOCALHOST", "LocalHost", "localhost.", "localhost.localdomain")
    yield from ("sub.localhost", "ip6-localhost", "ip6-loopback", "127.0.0.1.nip.test", "inside.test")
    yield from ("metadata.google.internal", "metadata", "instance-data", "kubernetes.default.svc")


def urls(port: int) -> list[str]:
    """The corpus; `port` is the canaries'."""
    found = [f"http://{host}:{port}/v1" for address in INSIDE for host in written(address)]
    found += [f"http://[{host}]:{port}/v1" for address in INSIDE for host in wrapped(address)]
    found += [f"http://[{host}]:{port}/v1" for host in IPV6]
    found += [f"http://[{IPv6Address(host).exploded}]:{port}" for host in IPV6[:4]]
    found += [f"http://{host}:{port}/v1" for host in names()]
    found += [*tricks(port)]
    return list(dict.fromkeys(found))


def tricks(port: int) -> Iterator[str]:
    """What two parsers read differently, and schemes that are none of ours."""
    here = f"127.0.0.1:{port}"
    yield f"http://api.example.com@{here}/v1"
    yield f"http://{here}@api.example.com/v1"
    yield f"http://user:password@{here}/v1"
    yield f"http://api.example.com#@{here}/v1"
    yield f"http://{here}#.example.com/v1"
    yield f"http://{here}\\.example.com/v1"
    yield f"http://api.example.com\\@{here}/v1"
    yield f"http://{here}?.example.com/v1"
    yield f"http:\\\\{here}/v1"
    yield f"http:/{here}/v1"
    yield f"http:{here}/v1"
    yield f"http:///{here}/v1"
    yield f"//{here}/v1"
    yield f" http://{here}/v1"
    yield f"http://{here}/v1 "
    yield f"http:// {here}/v1"
    yield f"http://{here}\t/v1"
    yield f"http://{here}\r\nHost: x/v1"
    yield f"ht\ntp://{here}/v1"
    yield f"HTTP://{here}/v1"
    yield f"https://{here}/v1"
    yield f"http://[::ffff:127.0.0.1%25lo]:{port}/v1"
    yield f"http://[fe80::1%25eth0]:{port}/v1"
    yield f"http://[::1:{port}/v1"
    yield f"http://::1:{port}/v1"
    yield f"http://[127.0.0.1]:{port}/v1"
    yield f"http://{here}:80/v1"
    yield f"http://127.0.0.1:0{port}/v1"
    yield f"http://127.0.0.1:+{port}/v1"
    yield f"http://127.0.0.1:{port + 65536}/v1"
    yield "http://127.0.0.1:0/v1"
    yield "http://127.0.0.1:/v1"
    yield "http://127.0.0.1/v1"
    yield f"http://①②⑦.⓪.⓪.①:{port}/v1"
    yield f"http://ⓛocalhost:{port}/v1"
    yield f"http://loc\u00adalhost:{port}/v1"
    yield f"http://xn--127-0-0-1:{port}/v1"
    for scheme in ("file", "gopher", "ftp", "dict", "ws", "unix", "ldap", "javascript", "data", "jar"):
        yield f"{scheme}://{here}/v1"
    yield "file:///etc/passwd"
    yield "unix:/var/run/docker.sock"
    yield "http://unix:/var/run/docker.sock:/v1"
