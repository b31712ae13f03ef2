"""What a client is made of: server, key, model, clocks. Arguments win over the environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from sluicegate.client.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_TIMEOUT: Final = 30.0
# A server that is there accepts a connection within a second; the rest is for TLS over bad lines.
CONNECT_TIMEOUT: Final = 5.0
TOTAL_TIMEOUT: Final = 1800.0
_A_YEAR: Final = 31_536_000.0


class Timeouts(Struct, frozen=True):
    """The four clocks of a call, in seconds.

    `connect`: name, TCP and TLS together. `first_event`: from the request to the head of the answer and, of a
    streamed one, its first event. `idle`: between two events of a stream, or two parts of a plain answer.
    `total`: the whole answer, also one that keeps coming.
    """

    connect: float = CONNECT_TIMEOUT
    first_event: float = DEFAULT_TIMEOUT
    idle: float = DEFAULT_TIMEOUT
    total: float = TOTAL_TIMEOUT

    @classmethod
    def of(cls, timeout: float | Timeouts) -> Timeouts:
        """`timeout` seconds of silence: to the answer's begin, and between two of its parts."""
        if isinstance(timeout, Timeouts):
            found = timeout
        else:
            total = max(TOTAL_TIMEOUT, timeout)
            found = cls(min(CONNECT_TIMEOUT, timeout), timeout, timeout, total)
        for name in cls.__struct_fields__:
            seconds = getattr(found, name)
            if not 0 < seconds <= _A_YEAR:
                raise SettingsError(f"timeout: {name} must be more than 0 seconds, not {seconds}")
        return found


class Settings(Struct, frozen=True):
    """One server, as a client calls it. The repr shows no key and no header's value."""

    base_url: str
    api_key: str | None = None
    model: str | None = None
    timeouts: Timeouts = Timeouts()
    headers: tuple[tuple[str, str], ...] = ()
    ca_file: str | None = None
    http2: bool = True

    def __repr__(self) -> str:
        key = "None" if self.api_key is None else "'***'"
        return f"Settings(base_url={self.base_url!r}, api_key={key}, model={self.model!r})"


def variable(name: str) -> str:
    """OPENAI_COMPATIBLE_… of the environment; empty where it is not set, or blank."""
    return os.environ.get(f"OPENAI_COMPATIBLE_{name}", "").strip()


def read(
    base_url: str | None,
    api_key: str | None,
    model: str | None,
    timeout: float | Timeouts | None,
    rest: Mapping[str, object],
) -> Settings:
    """Arguments first, then OPENAI_COMPATIBLE_BASE_URL, OPENAI_COMPATIBLE_API_KEY and
    OPENAI_COMPATIBLE_MODEL.

    Raises SettingsError where there is no base URL, or for an argument that is unknown or of a wrong type.
    """
    base_url = base_url or variable("BASE_URL")
    if not base_url:
        raise SettingsError(
            "There is no base URL: set OPENAI_COMPATIBLE_BASE_URL, or pass base_url='https://…/v1'."
        )
    unknown = sorted(rest.keys() - {"headers", "ca_file", "http2"})
    if unknown:
        raise SettingsError(f"There is no setting {unknown[0]!r}: there are headers, ca_file and http2.")
    headers = rest.get("headers") or {}
    if not isinstance(headers, dict):
        raise SettingsError("headers must be a dict of names and values.")
    try:
        return msgspec.convert(
            {
                "base_url": base_url,
                "api_key": api_key or variable("API_KEY") or None,
                "model": model or variable("MODEL") or None,
                "timeouts": Timeouts.of(DEFAULT_TIMEOUT if timeout is None else timeout),
                "headers": tuple(headers.items()),
                "ca_file": None if rest.get("ca_file") is None else os.fspath(rest["ca_file"]),  # type: ignore[call-overload]
                "http2": rest.get("http2", True),
            },
            Settings,
        )
    except (msgspec.ValidationError, TypeError) as error:
        raise SettingsError(f"A setting has a wrong type: {error}") from None
