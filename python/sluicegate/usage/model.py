"""The usage record: what is known of one admitted request, in the journal and in the database."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta, Struct

__all__ = [
    "CLOSED",
    "DAY_MS",
    "DIMENSIONS",
    "HOUR_MS",
    "INTERRUPTED",
    "MICROS",
    "OPENED",
    "PHASES",
    "Facet",
    "Filter",
    "Packed",
    "Page",
    "Record",
    "Source",
    "Sum",
    "encode",
    "id_bytes",
    "id_text",
    "interrupted",
    "packed",
    "time_of",
    "unpacked",
]

MICROS = 1_000_000
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
# What the hourly figures are kept by, and what may be a facet.
DIMENSIONS = ("workspace", "key", "assistant", "model", "upstream", "status", "code")
SUMS = (
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "micros",
    "duration_us",
)
# Rows of sums that are given at most, the oldest first: names of models come from clients.
MOST_SUMS = 50_000
# Beyond so many rows a search for a text or a duration stops and says where to go on.
SCANNED = 20_000
# Of tokens and millionths in one record, so that sums of half a million of them fit both databases.
LARGEST = 1 << 44
# Kinds of records in the journal.
OPENED = 1
CLOSED = 2

# Where the time of a request goes, in order, as the core has it.
PHASES = ("authenticate", "read", "resolve", "admit", "prepare", "upstream", "relay", "settle")

# Status and code of a request whose process died: the client saw the connection break.
BROKEN = 499
INTERRUPTED = "interrupted"

# Where the token counts come from.
Source = Literal["upstream", "counted", "estimated"]
SOURCES: tuple[Source, ...] = get_args(Source)

_PREFIX = "req_"
_ID_BYTES = 14
_TIME_BYTES = 8


class Record(Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """One request. In the journal it is a list: fields are only ever added at the end, with a default.

    `id` is the request's, and the only key: it sorts by time, and is never taken from a client.
    """

    id: str
    workspace: str
    # The key's id; its name may change, and is shown from the list of keys.
    key: str
    operation: str
    stream: bool = False
    # The public name that was asked for.
    model: str = ""
    assistant: str | None = None
    assistant_version: int | None = None
    upstream: str | None = None
    upstream_model: str | None = None
    status: int = 0
    code: str | None = None
    # What the client was told, where that is not a success.
    error: str | None = None
    attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    source: Source = "estimated"
    # Millionths of a dollar.
    micros: int = 0
    # Microseconds. Overhead: all but the waiting for the upstream and the client.
    first_us: int | None = None
    duration_us: int = 0
    overhead_us: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    client: str | None = None
    finish: str | None = None
    conversation: str | None = None
    # What was reserved of budgets: tokens and millionths; corrected where a crash has charged it.
    reserved_tokens: int = 0
    reserved_micros: int = 0
    # What thinking did that is wrong: «not_off», «ate_all».
    thinking: str | None = None
    # 0 to 100 of an answer whose assistant wants a score, and the checks that failed.
    score: int | None = None
    failed_checks: str | None = None
    # What the score comes from, such as `L0+L1`; why there is none, or not from all of it.
    score_method: str | None = None
    score_reason: str | None = None
    # Microseconds of each of `PHASES`, with commas; empty where it did not come so far.
    phases: str | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)

encode = _encoder.encode


# Records as the journal has them, by their ids as the databases have them.
Packed = Mapping[bytes, bytes]


def packed(records: Iterable[Record]) -> Packed:
    """Records as a store takes them."""
    return {id_bytes(record.id): encode(record) for record in records}


def unpacked(records: Packed) -> list[Record]:
    """The same as values. Raises msgspec.DecodeError for what `JournalSegment.read` has not let through."""
    return [_decoder.decode(payload) for payload in records.values()]


def id_bytes(id: str) -> bytes:
    """The id as the database has it: 14 bytes that sort by time. Raises ValueError for another text."""
    if not id.startswith(_PREFIX):
        raise ValueError("not the id of a request")
    raw = bytes.fromhex(id[len(_PREFIX) :])
    if len(raw) != _ID_BYTES:
        raise ValueError("not the id of a request")
    return raw


def id_text(raw: bytes) -> str:
    """The id of a request."""
    return _PREFIX + raw.hex()


def time_of(raw: bytes) -> int:
    """When the request came: milliseconds since 1970, as its id has it."""
    return int.from_bytes(raw[:_TIME_BYTES], "big") // 1_000_000


def time_of_id(id: str) -> int:
    """The same of an id as text. Raises ValueError for what is none."""
    return time_of(id_bytes(id))


def first_id(at_ms: int) -> bytes:
    """The smallest id of a moment."""
    return (max(at_ms, 0) * 1_000_000).to_bytes(_TIME_BYTES, "big") + bytes(_ID_BYTES - _TIME_BYTES)


def bounded(value: int) -> int:
    """A number of tokens or millionths that may be summed: an upstream may say any."""
    return min(value, LARGEST)


def interrupted(opened: Record) -> Record:
    """How a request is closed whose process died: its prompt was sent, of its answer nobody knows."""
    return msgspec.structs.replace(
        opened, status=BROKEN, code=INTERRUPTED, error="The gateway's process ended before the answer did."
    )


class Filter(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which requests. None: all. Times are milliseconds since 1970, `until` is not included."""

    workspace: str | None = None
    since: int | None = None
    until: int | None = None
    key: str | None = None
    assistant: str | None = None
    model: str | None = None
    upstream: str | None = None
    status: int | None = None
    code: str | None = None
    # Only those that failed.
    failed: bool = False
    least_us: int | None = None
    most_us: int | None = None
    # Anywhere in the error's text, without case.
    text: Annotated[str, Meta(max_length=200)] | None = None
    conversation: str | None = None

    @property
    def comparisons(self) -> list[tuple[str, int | str]]:
        """What no index knows, but for the text: a comparison in SQL up to its value, and the value."""
        wanted = (
            ("duration_us >=", self.least_us),
            ("duration_us <=", self.most_us),
            ("conversation =", self.conversation),
        )
        return [(comparison, value) for comparison, value in wanted if value is not None]

    @property
    def is_exact(self) -> bool:
        """The hourly figures know all that is asked for."""
        return not self.comparisons and self.text is None


class Page(Struct, frozen=True):
    """Records, the newest first; `next`: the id to go on below, None at the end."""

    records: tuple[Record, ...]
    next: str | None


class Facet(Struct, frozen=True):
    """One value of a field, and how many requests have it."""

    value: str | int | None
    requests: int


class Sum(Struct, frozen=True, kw_only=True):
    """What some requests used together.

    `at`: when their hour or day (UTC) began, in milliseconds since 1970; `of`: what they have in common, in
    the order that was asked for.
    """

    at: int | None = None
    of: tuple[str | int | None, ...] = ()
    requests: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    micros: int = 0
    duration_us: int = 0


def require_dimensions(names: Iterable[str]) -> None:
    """Raises ValueError for what records are not summed by."""
    for name in names:
        if name not in DIMENSIONS:
            raise ValueError(f"`{name}` is none of {', '.join(DIMENSIONS)}")


def order_of(found: Sum) -> tuple[int, list[str]]:
    """By time, then by what they have in common."""
    return found.at or 0, ["" if part is None else str(part) for part in found.of]


Interval = Literal["hour", "day"]
INTERVALS: dict[Interval, int] = {"hour": 1, "day": 24}
