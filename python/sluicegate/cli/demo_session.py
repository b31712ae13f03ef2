"""The demo upstream and the gateway in front of it as child processes, and one request to them."""

import http.client
import importlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final, NoReturn

import typer

from sluicegate.cli.demo_records import ASSISTANT, WORKSPACE, make_records
from sluicegate.storage.errors import StorageError

HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8080
# A cold start takes about a second here; 20 s leaves room for a slow, busy machine.
START_LIMIT_S: Final = 20.0
# On a busy machine a gateway that has just started takes some seconds to stop.
STOP_LIMIT_S: Final = 10.0
QUESTION: Final = "What happens to my request?"


class _FailedError(Exception):
    """Something did not start or answer; the text is for the person at the terminal."""


def run(port: int | None, *, once: bool) -> None:
    """Until Ctrl-C, or with `once` until one request is answered. Raises typer.Exit with the status."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ExitStack() as stack:
            _run(stack, _gateway_port(port), once=once)
    except KeyboardInterrupt:
        typer.echo("\nStopped.")
    except _FailedError as error:
        typer.echo(f"The demo failed: {error}", err=True)
        raise typer.Exit(1) from None


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _run(stack: ExitStack, port: int, *, once: bool) -> None:
    upstream_port = _free_port()
    upstream = stack.enter_context(
        _child("demo upstream", ["sluicegate.demo", f"--port={upstream_port}"], {})
    )
    _wait_until_up(upstream, upstream_port, "/v1/models")
    # A gateway that had to be killed may leave a worker that still writes for a moment.
    made = tempfile.TemporaryDirectory(prefix="sluicegate-demo-", ignore_cleanup_errors=True)
    folder = Path(stack.enter_context(made))
    try:
        key = make_records(folder, f"http://{HOST}:{upstream_port}/v1")
    except StorageError as error:
        raise _FailedError(f"its database cannot be made: {error}") from None
    command = [
        "sluicegate",
        "serve",
        f"--data-dir={folder}",
        f"--host={HOST}",
        f"--port={port}",
        "--workers=1",
    ]
    gateway = stack.enter_context(_child("gateway", command, {"SLUICEGATE_ALLOW_PRIVATE_NETWORKS": HOST}))
    _wait_until_up(gateway, port, "/readyz")
    _show(port, upstream_port, key)
    if once:
        _ask(port, key)
        return
    typer.echo("\nCtrl-C stops both.")
    while True:
        for child in (upstream, gateway):
            if child.process.poll() is not None:
                raise _FailedError(child.report())
        time.sleep(0.5)


def _show(port: int, upstream_port: int, key: str) -> None:
    base = f"http://{HOST}:{port}/v1"
    body = json.dumps(_request())
    typer.echo(
        f"""Sluicegate demo: the gateway, behind it an upstream on port {upstream_port} with no model.

  base URL    {base}
  workspace   {WORKSPACE}
  key         {key}
  assistants  {ASSISTANT}, short-answers
  models      demo, demo-fast, demo-slow, demo-thinking, demo-thinking-fast, demo-embedding

With curl:
  curl -N {base}/chat/completions -H 'Authorization: Bearer {key}' \\
    -H 'Content-Type: application/json' -d '{body}'

With the client of this package, in a shell:
  export OPENAI_COMPATIBLE_BASE_URL={base}
  export OPENAI_COMPATIBLE_API_KEY={key}
  export OPENAI_COMPATIBLE_MODEL=demo
  sluicegate ask "{QUESTION}"

With the official Python client (pip install openai):
  from openai import OpenAI
  client = OpenAI(base_url="{base}", api_key="{key}")
  for chunk in client.chat.completions.create(model="{ASSISTANT}", stream=True,
          messages=[{{"role": "user", "content": "{QUESTION}"}}]):
      print(chunk.choices[0].delta.content or "", end="", flush=True)"""
    )


def _request() -> dict[str, Any]:
    return {"model": ASSISTANT, "stream": True, "messages": [{"role": "user", "content": QUESTION}]}


def _ask(port: int, key: str) -> None:
    """One real streamed request, shown as it arrives; an answer that does not finish is a failure."""
    installed = importlib.util.find_spec("openai") is not None
    if installed:
        # Importing it takes a second, which must not count as the gateway's.
        importlib.import_module("openai")
    who = "the official openai client" if installed else "http.client"
    typer.echo(f"\nOne request to the assistant «{ASSISTANT}», by {who}:")
    typer.echo(f"> {QUESTION}\n< ", nl=False)
    started = time.monotonic()
    first: float | None = None
    count = 0
    for text in _by_openai(port, key) if installed else _by_http(port, key):
        first = first or time.monotonic()
        count += 1
        typer.echo(text, nl=False)
    if first is None:
        raise _FailedError("the answer was empty")
    total = time.monotonic() - started
    typer.echo(
        f"\n\n{count} pieces; the first after {(first - started) * 1000:.0f} ms, all in {total:.1f} s."
    )


def _by_openai(port: int, key: str) -> Iterator[str]:
    import openai  # noqa: PLC0415 - optional, and only this path needs it

    client = openai.OpenAI(base_url=f"http://{HOST}:{port}/v1", api_key=key, max_retries=0, timeout=30)
    finish = None
    try:
        chunks = client.chat.completions.create(
            model=ASSISTANT, stream=True, messages=[{"role": "user", "content": QUESTION}]
        )
        for chunk in chunks:
            for choice in chunk.choices:
                finish = choice.finish_reason or finish
                if choice.delta.content:
                    yield choice.delta.content
    except openai.OpenAIError as error:
        raise _FailedError(f"the request was refused: {error}") from None
    finally:
        client.close()
    if finish != "stop":
        raise _FailedError(f"the answer ended with finish_reason {finish!r}")


def _by_http(port: int, key: str) -> Iterator[str]:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(_request()), headers)
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            raise _FailedError(f"the request was refused: {response.status} {response.read(2000)!r}")
        done = False
        for line in response:
            data = line.decode().removeprefix("data:").strip()
            done = done or data == "[DONE]"
            if data.startswith("{"):
                yield from _content(json.loads(data))
    except (OSError, http.client.HTTPException) as error:
        raise _FailedError(f"the connection broke: {error!r}") from None
    finally:
        connection.close()
    if not done:
        raise _FailedError("the answer ended without [DONE]")


def _content(chunk: dict[str, Any]) -> Iterator[str]:
    if "error" in chunk:
        raise _FailedError(f"the answer failed: {chunk['error']}")
    for choice in chunk["choices"]:
        if choice["delta"].get("content"):
            yield choice["delta"]["content"]


class _Child:
    """A process of the demo and what it printed."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self.name = name
        self.process = process
        self._log = log

    def report(self) -> str:
        """Why it is not there, in its own last words."""
        self._log.seek(0)
        said = self._log.read()[-2000:].decode(errors="replace").strip()
        state = (
            f"ended with status {self.process.poll()}" if self.process.poll() is not None else "is running"
        )
        return f"the {self.name} {state}. It printed:\n{said or '(nothing)'}"


@contextmanager
def _child(name: str, command: list[str], settings: Mapping[str, str]) -> Iterator[_Child]:
    """Run `python -m …` until the block ends, in its own session: Ctrl-C reaches only us."""
    prefixes = ("OPENAI_COMPATIBLE_", "SLUICEGATE_")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(prefixes)}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules
            [sys.executable, "-m", *command],
            env={**inherited, **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - no threads here
        )
        try:
            yield _Child(name, process, log)
        finally:
            _stop(process)


def _die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the demo itself is killed, so that nothing is left over."""
    import ctypes  # noqa: PLC0415 - runs in the child, on Linux only

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_LIMIT_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        # Too slow, or a second Ctrl-C. Its workers share its session: the whole group goes.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_LIMIT_S)


def _wait_until_up(child: _Child, port: int, path: str) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if child.process.poll() is not None:
            raise _FailedError(child.report())
        connection = http.client.HTTPConnection(HOST, port, timeout=2)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise _FailedError(f"no answer within {START_LIMIT_S:.0f} s; {child.report()}")


def _gateway_port(wanted: int | None) -> int:
    if wanted == 0:
        return _free_port()
    if _is_free(wanted or DEFAULT_PORT):
        return wanted or DEFAULT_PORT
    if wanted is None:
        return _free_port()
    typer.echo(f"Port {wanted} is in use. Choose another with --port, or --port 0 for a free one.", err=True)
    raise typer.Exit(2)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        number: int = probe.getsockname()[1]
        return number
