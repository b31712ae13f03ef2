"""The metrics of a gateway: counted in a file that its workers share, and written for Prometheus."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sluicegate.engine import Metrics, __version__
from sluicegate.telemetry.logs import Log
from sluicegate.telemetry.run_folder import make_run_folder

_MICROSECONDS = 1_000_000

Sample = tuple[str, list[str], list[int]]


class Family(NamedTuple):
    """How one family of the core's samples is shown."""

    kind: str
    name: str
    help: str
    labels: tuple[str, ...] = ()


# By the core's names. A counter's name gets `_total`.
FAMILIES = {
    "requests": Family(
        "counter",
        "sluicegate_requests",
        "Requests that have ended, refused ones too. Without workspace: nobody was let in.",
        ("operation", "status", "workspace"),
    ),
    "errors": Family("counter", "sluicegate_errors", "Errors that clients saw, by their code.", ("code",)),
    "duration": Family(
        "coarse",
        "sluicegate_request_duration_seconds",
        "From a request's head to the end of its answer.",
        ("operation", "stream"),
    ),
    "phase": Family(
        "fine",
        "sluicegate_request_phase_seconds",
        "Where the time of requests went.",
        ("phase", "stream"),
    ),
    "overhead": Family(
        "fine",
        "sluicegate_request_overhead_seconds",
        "The gateway's own part of a request: all but the waiting for the client's body and upstreams.",
        ("operation",),
    ),
    "tokens": Family(
        "counter",
        "sluicegate_tokens",
        "Tokens used. Cached ones are a part of prompt, reasoning a part of completion.",
        ("workspace", "type"),
    ),
    "cost": Family("cost", "sluicegate_cost_dollars", "What requests have cost.", ("workspace",)),
    "upstream_requests": Family(
        "counter",
        "sluicegate_upstream_requests",
        "Requests by the upstream that was asked last, and what the client saw.",
        ("upstream", "status"),
    ),
    "upstream_failures": Family(
        "counter",
        "sluicegate_upstream_failures",
        "Calls that failed or were told to wait, also where another upstream answered in its place.",
        ("upstream",),
    ),
    "first_token": Family(
        "coarse",
        "sluicegate_time_to_first_token_seconds",
        "From the call of an upstream to its first event.",
        ("upstream",),
    ),
    "answer": Family(
        "coarse",
        "sluicegate_upstream_duration_seconds",
        "From the call of an upstream to the end of its answer.",
        ("upstream",),
    ),
    "model_requests": Family(
        "counter",
        "sluicegate_model_requests",
        "Answers, by the upstream's own name of the model.",
        ("model",),
    ),
    "model_tokens": Family("counter", "sluicegate_model_tokens", "Tokens used, by model.", ("model", "type")),
    "model_cost": Family("cost", "sluicegate_model_cost_dollars", "What answers have cost.", ("model",)),
    "limit_rejections": Family(
        "counter",
        "sluicegate_limit_rejections",
        "Requests that a limit or budget refused: whose, and why.",
        ("subject", "reason"),
    ),
    "score": Family(
        "score",
        "sluicegate_quality_score",
        "Scores of answers, 0 to 100, of assistants that want one.",
        ("workspace", "assistant"),
    ),
    "scored": Family(
        "counter",
        "sluicegate_quality_answers",
        "Answers by what became of them: `flagged` ones were not good enough and given all the same.",
        ("workspace", "assistant", "verdict"),
    ),
    "unscored": Family(
        "counter",
        "sluicegate_quality_unscored",
        "Answers that have no score, for a reason that their record has.",
        ("workspace", "assistant"),
    ),
    "asked_again": Family(
        "counter",
        "sluicegate_quality_asked_again",
        "Further answers that were asked for, because one was not good enough.",
        ("workspace", "assistant"),
    ),
    "score_cost": Family(
        "cost",
        "sluicegate_quality_cost_dollars",
        "What answers have cost that nobody got.",
        ("workspace", "assistant"),
    ),
    "score_wait": Family(
        "seconds",
        "sluicegate_quality_wait_seconds",
        "How long clients waited for a score and for other answers after the first one was there.",
        ("workspace", "assistant"),
    ),
    "lag": Family("fine", "sluicegate_event_loop_lag_seconds", "How late a worker's event loop was."),
    "retries": Family("counter", "sluicegate_upstream_retries", "Further tries after a failed call."),
    "internal_errors": Family("counter", "sluicegate_internal_errors", "Faults of the gateway itself."),
    "records_written": Family("counter", "sluicegate_usage_records_written", "Records put into the journal."),
    "records_lost": Family(
        "counter",
        "sluicegate_usage_records_lost",
        "Records that the disk did not take and memory had no room for.",
    ),
    "records_moved": Family(
        "counter", "sluicegate_usage_records_moved", "Records brought from the journal to the database."
    ),
    "moves_failed": Family(
        "counter", "sluicegate_usage_moves_failed", "Rounds of moving in which the database took nothing."
    ),
    "limits_alone": Family(
        "counter", "sluicegate_limits_counted_alone", "Limits that were counted by a share of one worker."
    ),
    "log_lines_dropped": Family("counter", "sluicegate_log_lines_dropped", "Log lines that nobody took."),
    "worker_starts": Family("counter", "sluicegate_worker_starts", "Worker processes that were started."),
    "open_requests": Family("sum", "sluicegate_open_requests", "Admitted requests that have not ended."),
    "open_streams": Family("sum", "sluicegate_open_streams", "Those of them that are streams."),
    "records_waiting": Family(
        "sum", "sluicegate_usage_records_waiting", "Records in memory that the disk has not taken yet."
    ),
    "moved_at_ms": Family(
        "latest",
        "sluicegate_usage_last_move_timestamp_seconds",
        "When records were last moved without a failure.",
    ),
    "database_down": Family(
        "good", "sluicegate_database_up", "Whether the database answers, as all workers see it."
    ),
    "limits_not_shared": Family(
        "good", "sluicegate_limits_shared", "Whether all workers count limits together."
    ),
    "draining": Family("sum", "sluicegate_workers_draining", "Workers that are about to stop."),
    "resident_bytes": Family(
        "worker", "sluicegate_worker_resident_memory_bytes", "Memory of a worker.", ("worker",)
    ),
    "cpu_us": Family(
        "worker_seconds", "sluicegate_worker_cpu_seconds", "CPU that a worker has used.", ("worker",)
    ),
    "open_files": Family("worker", "sluicegate_worker_open_fds", "Open files of a worker.", ("worker",)),
}
_POOL = (
    Family("sum", "sluicegate_upstream_connections", "Connections to upstreams.", ("upstream", "state")),
    Family(
        "sum",
        "sluicegate_upstream_avoided_workers",
        "Workers that ask others first, because of failures or what the last question for models gave.",
        ("upstream",),
    ),
)


def open_metrics(workers: int, log: Log) -> Metrics:
    """What all workers count in; where there can be no file, each shows itself alone, which is said aloud."""
    if workers == 1:
        return Metrics()
    main = os.getppid()
    try:
        # Of this run alone: a number of a process is used again.
        return Metrics(make_run_folder(main) / "metrics-1.map", _started(main))
    except OSError as error:
        log.warning(
            "metrics_not_shared",
            cause=error.strerror or type(error).__name__,
            message="Each worker counts for itself: /metrics shows the one that answers.",
        )
        return Metrics()


def _started(pid: int) -> int:
    """When a process started, in ticks since the machine did; 1 where nobody tells."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 1


def exposition(samples: Iterable[Sample], accept: str) -> tuple[bytes, str]:
    """The text for whoever takes `accept`, and its media type: OpenMetrics where it is asked for."""
    # Imported late: most workers are never asked.
    from prometheus_client.exposition import choose_encoder  # noqa: PLC0415

    encode, media_type = choose_encoder(accept)
    return encode(_Collected(samples)), media_type


class _Collected:
    """What prometheus-client asks for its families."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples: dict[str, list[Sample]] = {}
        for sample in samples:
            self._samples.setdefault(sample[0], []).append(sample)

    def collect(self) -> Iterator[Any]:
        """One family after the other."""
        from prometheus_client import core  # noqa: PLC0415

        build = core.InfoMetricFamily("sluicegate_build", "What is running.")
        build.add_metric([], {"version": __version__})
        yield build
        workers = len(self._samples.get("open_requests", ()))
        yield core.GaugeMetricFamily("sluicegate_workers", "Worker processes that live.", value=workers)
        for name, family in FAMILIES.items():
            found = self._samples.get(name, [])
            if family.kind in ("coarse", "fine", "score"):
                yield _histogram(core, family, found)
            elif family.kind in ("counter", "cost", "seconds", "worker_seconds"):
                yield _counter(core, family, found)
            elif family.kind == "worker":
                yield _worker(core, family, found)
            elif found:
                yield core.GaugeMetricFamily(family.name, family.help, value=_merged(family.kind, found))
        connections, avoided = (core.GaugeMetricFamily(f.name, f.help, labels=f.labels) for f in _POOL)
        for _, (upstream,), (idle, in_use, avoiding) in self._samples.get("pool", []):
            connections.add_metric([upstream, "idle"], idle)
            connections.add_metric([upstream, "in_use"], in_use)
            avoided.add_metric([upstream], avoiding)
        yield from (connections, avoided)


def _histogram(core: Any, family: Family, samples: Iterable[Sample]) -> Any:
    unit = 1 if family.kind == "score" else _MICROSECONDS
    of_kind = dict(zip(("fine", "coarse", "score"), Metrics.bounds(), strict=True))
    bounds = [f"{bound / unit!r}" for bound in of_kind[family.kind]]
    shown = core.HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for _, labels, (*buckets, total) in samples:
        seen, cumulative = 0, []
        for bound, count in zip([*bounds, "+Inf"], buckets, strict=True):
            seen += count
            cumulative.append((bound, seen))
        shown.add_metric(labels, cumulative, total / unit)
    return shown


def _counter(core: Any, family: Family, samples: Iterable[Sample]) -> Any:
    shown = core.CounterMetricFamily(family.name, family.help, labels=family.labels)
    for _, labels, (value,) in samples:
        shown.add_metric(labels, value if family.kind == "counter" else value / _MICROSECONDS)
    return shown


def _worker(core: Any, family: Family, samples: Iterable[Sample]) -> Any:
    shown = core.GaugeMetricFamily(family.name, family.help, labels=family.labels)
    for _, labels, (value,) in samples:
        shown.add_metric(labels, value)
    return shown


def _merged(kind: str, samples: Iterable[Sample]) -> float:
    """One number of what the workers say."""
    values = [value for _, _, (value,) in samples]
    if kind == "latest":
        return max(values) / 1000
    # What is bad is counted, so that a worker which has said nothing yet is not.
    return sum(values) if kind == "sum" else float(not any(values))
