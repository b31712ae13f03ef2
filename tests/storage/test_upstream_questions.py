"""What is known of upstreams, and asking them now, from the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_commands import Cli, cli, good, refused
from test_serving import demo

from processes import Server, free_port
from sluicegate.upstreams.record import NOTHING_LEARNED, Discovered, LearnedModel, learned

__all__ = ["cli", "demo"]

HERE = {"SLUICEGATE_ALLOW_PRIVATE_NETWORKS": "127.0.0.0/8"}


@pytest.mark.parametrize(
    ("asked_at", "error", "state"),
    [
        (None, None, "unasked"),
        (1, None, "ok"),
        (1, "upstream_empty", "failing"),
        (1, "model_not_found", "failing"),
        (1, "upstream_connect_error", "out"),
        (1, "upstream_auth_error", "out"),
    ],
)
def test_what_the_last_answer_says_of_a_server(asked_at: int | None, error: str | None, state: str) -> None:
    found = Discovered(models=(LearnedModel(model="m"),), learned_at=None, asked_at=asked_at, error=error)
    assert (learned(found).state, learned(found).models) == (state, found.models)
    assert learned(NOTHING_LEARNED).state == "unasked"


def row(output: str, name: str) -> list[str]:
    (line,) = [line for line in output.splitlines() if line.startswith(f"{name} ")]
    return line.split()


def test_a_server_is_asked_now(cli: Cli, demo: Server) -> None:
    good(cli("workspaces", "create", "acme"))
    made = cli("upstreams", "create", "demo", f"base_url={demo.base_url}")
    assert "a private address" in made.stderr
    assert row(good(cli("upstreams", "list")), "demo")[-2:] == ["0", "unasked"]
    # As a gateway with these settings would be: the range is not allowed.
    tested = cli("upstreams", "test", "demo")
    assert tested.exit_code == 1
    assert "upstream_address_forbidden (its address is private" in tested.stderr
    assert row(good(cli("upstreams", "list")), "demo")[-1] == "unasked"
    found: Any = json.loads(good(cli("upstreams", "test", "demo", "--json", env=HERE)))
    assert found["state"] == "ok"
    assert "demo-fast" in [model["model"] for model in found["models"]]
    assert row(good(cli("upstreams", "list")), "demo")[-1] == "unasked"
    shown = good(cli("upstreams", "discover", "demo", env=HERE))
    assert row(shown, "demo-fast")[-1] == "learned"
    assert row(good(cli("upstreams", "list")), "demo")[-2:] == [str(len(found["models"])), "ok"]
    assert json.loads(good(cli("upstreams", "models", "demo", "--json")))["state"] == "ok"
    # Gone, and what was learned stays.
    good(cli("upstreams", "create", "gone", f"base_url=http://127.0.0.1:{free_port()}/v1", "models=m"))
    gone = cli("upstreams", "discover", "gone", env=HERE)
    assert "upstream_connect_error (nothing listens there" in gone.stderr
    assert "Other upstreams are asked first" in gone.stderr
    assert row(good(cli("upstreams", "list")), "gone")[-2:] == ["1", "out"]
    good(cli("upstreams", "set", "gone", "enabled=false"))
    assert row(good(cli("upstreams", "list")), "gone")[-1] == "disabled"
    assert "It is turned off" in cli("upstreams", "models", "gone").stderr
    assert "there is no upstream `nobody`" in refused(cli("upstreams", "test", "nobody"))
