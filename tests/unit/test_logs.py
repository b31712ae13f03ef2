"""Logs: one JSON object a line, never a blocked loop, never the text of an object."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import time

from sluicegate.settings import Secret
from sluicegate.telemetry.logs import LibraryLines, Log


def test_one_object_a_line() -> None:
    output = io.StringIO()
    log = Log(output)
    log.info("one", text="a\nb\x00", number=1)
    log.warning("two", nothing=None)
    log.error("three")
    log.close()
    lines = [json.loads(line) for line in output.getvalue().splitlines()]
    assert [(line["level"], line["event"]) for line in lines] == [
        ("info", "one"),
        ("warning", "two"),
        ("error", "three"),
    ]
    assert lines[0]["text"] == "a\nb\x00"
    assert abs(lines[0]["time"] - time.time()) < 5


def test_objects_are_named_by_their_kind_alone() -> None:
    output = io.StringIO()
    log = Log(output)
    log.info("x", key=Secret("canary"), error=ValueError("canary"))
    log.close()
    assert json.loads(output.getvalue())["key"] == "<Secret>"
    assert "canary" not in output.getvalue()


def test_lines_of_libraries_have_the_same_form() -> None:
    output = io.StringIO()
    logger = logging.getLogger("test-lines")
    sink = logging.StreamHandler(output)
    sink.setFormatter(LibraryLines())
    logger.addHandler(sink)
    logger.propagate = False
    logger.warning("full: %s\n\x00", 3)
    try:
        int("canary")
    except ValueError:
        logger.exception("failed")
    first, second = (json.loads(line) for line in output.getvalue().splitlines())
    assert (first["level"], first["event"], first["logger"]) == ("warning", "library", "test-lines")
    assert first["message"] == "full: 3\n\x00"
    assert abs(first["time"] - time.time()) < 5
    assert (second["message"], second["cause"]) == ("failed", "ValueError")
    assert "canary" not in output.getvalue()


class Blocked(io.StringIO):
    """A full pipe."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()

    def write(self, text: str) -> int:
        self.open.wait(10)
        return super().write(text)


def test_a_blocked_sink_drops_and_counts() -> None:
    sink = Blocked()
    log = Log(sink)
    began = time.monotonic()
    for number in range(10_000):
        log.info("x", number=number)
    assert time.monotonic() - began < 2
    dropped = log.dropped
    assert 1000 < dropped < 3000
    sink.open.set()
    while log._queue.qsize():
        time.sleep(0.01)
    log.info("after")
    log.close()
    lines = [json.loads(line) for line in sink.getvalue().splitlines()]
    assert len(lines) == 10_000 - dropped + 1
    assert lines[-1]["dropped_before"] == dropped


def test_a_broken_sink_harms_nobody() -> None:
    sink = io.StringIO()
    log = Log(sink)
    sink.close()
    log.info("x")
    log.close()
    assert log.dropped == log.lost == 1


def test_a_forked_worker_writes_too() -> None:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    log = Log(stream)
    log.info("parent")
    written = os.read(reading, 65536)
    time.sleep(0.1)  # a fork while the writer still holds the stream's lock would block the child
    pid = os.fork()
    if pid == 0:
        log.info("child")
        log.close()
        os._exit(0)
    os.waitpid(pid, 0)
    log.close()
    stream.close()
    with os.fdopen(reading, "rb") as rest:
        written += rest.read()
    assert [json.loads(line)["event"] for line in written.splitlines()] == ["parent", "child"]
