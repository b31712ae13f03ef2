"""What is measured: each gateway with its version, started as a plain proxy before the same upstream."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from string import Template
from time import monotonic, sleep

from bench.children import CACHE, READY_SECONDS, BenchError, Server, free_port, running
from bench.outcome import Behind

KEY = "sk-bench"
INSTALL_SECONDS = 300.0


@dataclass(frozen=True)
class Target:
    """A gateway that can be started."""

    name: str
    version: str
    settings: str
    command: list[str]
    port: int
    ready: str
    """A path that answers 200 once it listens."""
    environment: Mapping[str, str] = field(default_factory=dict)
    key: str = ""


@dataclass(frozen=True)
class Absent:
    """A gateway that cannot be measured here, and why."""

    name: str
    reason: str


def find(upstream: int, folder: Path) -> list[Target | Absent]:
    """Every gateway that belongs to this measurement, nginx first: it is the floor."""
    own = [nginx(upstream, free_port(), folder), sluicegate(upstream, free_port())]
    own.append(assistant(upstream, free_port(), folder))
    return own + [router.target(upstream, free_port()) for router in ROUTERS]


def behind(target: Target | Absent) -> Behind:
    """What the results say about it."""
    if isinstance(target, Absent):
        return Behind(absent=target.reason)
    return Behind(version=target.version, settings=target.settings)


@contextmanager
def started(target: Target, folder: Path) -> Iterator[Server]:
    """The gateway, once it has answered a chat request: some listen before they know their upstream."""
    log = folder / f"{target.name}.log"
    with running(target.command, target.port, target.ready, log, target.environment) as server:
        deadline = monotonic() + READY_SECONDS
        while chat_status(target) != 200:
            if server.process.poll() is not None or monotonic() > deadline:
                text = log.read_text(errors="replace")[-2000:]
                raise BenchError(f"{target.name} answers no chat request:\n{text}")
            sleep(0.1)
        yield server


def chat_status(target: Target) -> int:
    connection = HTTPConnection("127.0.0.1", target.port, timeout=5)
    body = '{"model": "bench-n2", "messages": [{"role": "user", "content": "Hello"}]}'
    headers = {"content-type": "application/json", "authorization": f"Bearer {target.key}"}
    try:
        connection.request("POST", "/v1/chat/completions", body, headers)
        return connection.getresponse().status
    except (OSError, HTTPException):
        return 0
    finally:
        connection.close()


def sluicegate(upstream: int, port: int) -> Target:
    """This project: one worker, key check on, usage observed, started as a user would start it."""
    environment = {
        "SLUICEGATE_API_KEYS": KEY,
        "OPENAI_COMPATIBLE_BASE_URL": f"http://127.0.0.1:{upstream}/v1",
    }
    arguments = ["serve", "--port", str(port), "--workers", "1"]
    return Target(
        name="sluicegate",
        version=output([sys.executable, "-m", "sluicegate", "--version"]),
        settings="`sluicegate serve --workers 1`; key check and observation of usage on, access log off",
        command=[sys.executable, "-m", "sluicegate", *arguments],
        port=port,
        ready="/healthz",
        environment=environment,
        key=KEY,
    )


ASSISTANT = Template("""\
[[keys]]
name = "bench"
key = "$key"
[[upstreams]]
name = "bench"
base_url = "http://127.0.0.1:$upstream/v1"
models = ["bench-n2", "bench-n20-b40"]
context_lengths = { "bench-n20-b40" = 32768 }
[[assistants]]
name = "bench-n20-b40"
model = ["bench/bench-n20-b40"]
system_prompt = "$prompt"
temperature = 0.2
max_tokens = 512
locked = ["temperature"]
""")
PROMPT = "You are a careful assistant that answers in plain words. " * 8


def assistant(upstream: int, port: int, folder: Path) -> Target:
    """The same, where the name that is asked for is an assistant's: its prompt and parameters are put in."""
    config = folder / "assistant.toml"
    config.write_text(ASSISTANT.substitute(key=KEY, upstream=upstream, prompt=PROMPT))
    arguments = ["serve", "--config", str(config), "--port", str(port), "--workers", "1"]
    plain = sluicegate(upstream, port)
    return replace(
        plain,
        name="sluicegate-assistant",
        settings=f"as sluicegate, by an assistant: a system prompt of {len(PROMPT)} bytes, two parameters",
        command=[sys.executable, "-m", "sluicegate", *arguments],
        environment={},
    )


NGINX = Template("""\
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid $folder/nginx.pid;
error_log stderr crit;
events { worker_connections 12000; }
http {
  access_log off;
  client_body_temp_path $folder/body;
  proxy_temp_path $folder/proxy;
  fastcgi_temp_path $folder/fastcgi;
  uwsgi_temp_path $folder/uwsgi;
  scgi_temp_path $folder/scgi;
  keepalive_requests 1000000000;
  upstream bench { server 127.0.0.1:$upstream; keepalive 512; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:$port backlog=4096;
    location = /healthz { return 200; }
    location / {
      proxy_pass http://bench;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 300s;
    }
  }
}
""")


def nginx(upstream: int, port: int, folder: Path) -> Target | Absent:
    """The floor: it passes bytes on and does nothing else."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        return Absent("nginx", "nginx is not installed; `make services` installs Debian's nginx-light")
    config = folder / "nginx.conf"
    config.write_text(NGINX.substitute(folder=folder, upstream=upstream, port=port))
    return Target(
        name="nginx",
        version=output([program, "-v"]).removeprefix("nginx version: nginx/"),
        settings="one worker; `proxy_pass`, unbuffered, 512 kept upstream connections; no key check, no log",
        command=[program, "-e", "stderr", "-c", str(config)],
        port=port,
        ready="/healthz",
    )


@dataclass(frozen=True)
class Router:
    """A router written in Rust with a Python launcher, from the package index."""

    name: str
    requirement: str
    module: str
    quiet: bool = False

    def target(self, upstream: int, port: int) -> Target | Absent:
        """As it comes it logs each request; `quiet` leaves that out, as the gateway does by default."""
        python = installed(self.name, self.requirement)
        if isinstance(python, Absent):
            return python
        arguments = [
            *("--host", "127.0.0.1", "--port", str(port), "--policy", "round_robin"),
            *("--worker-urls", f"http://127.0.0.1:{upstream}", "--worker-startup-check-interval", "1"),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())),
            *(["--log-level", "warn"] if self.quiet else []),
        ]
        log = "`--log-level warn`" if self.quiet else "logs each request, to a file"
        return Target(
            name=self.name,
            version=self.requirement.partition("==")[2],
            settings=f"`--policy round_robin`, one worker URL, defaults else; {log}; no key check",
            command=[str(python), "-m", self.module, *arguments],
            port=port,
            ready="/liveness",
        )


ROUTERS = (
    Router("sglang-router", "sglang-router==0.3.2", "sglang_router.launch_router"),
    Router("sglang-router-quiet", "sglang-router==0.3.2", "sglang_router.launch_router", quiet=True),
)


def installed(name: str, requirement: str) -> Path | Absent:
    """The Python of an environment that has this package and nothing of ours: its pins clash with ours."""
    folder = CACHE / "peers" / re.sub(r"[^a-z0-9.]+", "-", requirement)
    python = folder / "bin" / "python"
    done = folder / "installed"
    if done.exists() and python.exists():
        return python
    pip = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
    ]
    try:
        for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], [*pip, requirement]):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.CalledProcessError as error:
        lines = str(error.stderr or error).strip().splitlines()
        return Absent(name, f"{requirement} cannot be installed here: {lines[-1] if lines else error}")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Absent(name, f"{requirement} cannot be installed here: {error}")
    done.touch()
    return python


def output(command: list[str]) -> str:
    """What a command prints, on either channel; a failure is said in its place."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({error})"
    return (done.stdout + done.stderr).strip() or "unknown"
