"""The whole application over a scripted core."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from fakes.asgi import KEY
from fakes.engine import Asked, FakeEngine, FakeRecipe, FakeReply, FakeRequest, FakeUpstream
from sluicegate import app as application
from sluicegate.settings import KeyConfig, Secret, ServerConfig, Settings, UpstreamConfig
from sluicegate.telemetry.logs import Log
from sluicegate.upstreams import connect

STRICT = UpstreamConfig(name="one", base_url="http://one/v1", models=("m",))
# The second one is only asked when the first one fails.
TWO = (STRICT, UpstreamConfig(name="two", base_url="http://two/v1", models=("m",), weight=0))


class FakeGateway:
    """An application, the calls that it made, and the lines that it logged."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, settings: Settings, script: Callable[[Asked], Any]
    ) -> None:
        self.engine = FakeEngine(script)
        self.output = io.StringIO()
        core = SimpleNamespace(
            Engine=lambda **_: self.engine, Upstream=FakeUpstream, Recipe=FakeRecipe, scan=FakeRequest
        )
        monkeypatch.setattr(application, "core", core)
        monkeypatch.setattr(connect, "core", core)
        monkeypatch.setattr(application, "Log", self.make_log)
        self.app = application.create_app(settings)

    def make_log(self, *, access: bool) -> Log:
        self.log = Log(self.output, access=access)
        return self.log

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Everything logged so far; a lifespan that has ended has closed the log."""
        self.log.close()
        return [json.loads(line) for line in self.output.getvalue().splitlines()]


def settings(
    *upstreams: UpstreamConfig,
    default_model: str | None = None,
    assistants: tuple[dict[str, Any], ...] = (),
    workspace: dict[str, Any] | None = None,
    models: tuple[str, ...] | None = None,
    limits: dict[str, Any] | None = None,
    budget: dict[str, Any] | None = None,
    **server: Any,
) -> Settings:
    """Settings with the key of the fake client, which may use `models` within `limits` and `budget`."""
    return Settings(
        server=ServerConfig(**server),
        keys=(
            KeyConfig(
                name="tester", key=Secret(KEY), models=models, limits=limits or {}, budget=budget or {}
            ),
        ),
        upstreams=upstreams or (STRICT,),
        default_model=default_model,
        assistants=assistants,
        workspace=workspace or {},
    )


Made = Callable[..., FakeGateway]


def maker(monkeypatch: pytest.MonkeyPatch) -> Made:
    """`make(script, *upstreams, **settings)`; a script may also be one reply for all calls."""

    def make(script: Any = None, *upstreams: UpstreamConfig, **options: Any) -> FakeGateway:
        reply = script if isinstance(script, FakeReply) else FakeReply()
        found = script if callable(script) else lambda _: reply
        return FakeGateway(monkeypatch, settings(*upstreams, **options), found)

    return make
