"""The commands for keys: shown once, limits, ends, roles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Cli, good, looked_up, refused

from sluicegate.storage.location import Location

URL = "base_url=http://127.0.0.1:8000/v1"


def test_a_key_is_shown_once_and_alone_on_standard_output(cli: Cli, location: Location) -> None:
    good(cli("workspaces", "create", "acme"))
    made = cli("keys", "create", "app", "expires=90d", "models=qwen*")
    (secret,) = made.stdout.splitlines()
    assert secret not in made.stderr
    assert looked_up(location, secret).principal.models == ("qwen*",)
    assert "`keys rotate` gives it a new secret" in refused(cli("keys", "create", "app"))
    for command in (("list",), ("list", "--json"), ("show", "app"), ("show", "app", "--json")):
        shown = cli("keys", *command)
        assert good(shown)
        assert secret not in shown.output
    rotated = good(cli("keys", "rotate", "app", "--grace", "1h")).strip()
    assert looked_up(location, secret).principal.until is not None
    assert looked_up(location, rotated).principal.until is not None  # its expiry
    assert "expected a number and s, m, h or d" in refused(cli("keys", "rotate", "app", "--grace", "soon"))
    assert "7 days" in refused(cli("keys", "rotate", "app", "--grace", "8d"))
    assert '    + scopes = ["chat:write"]\n' in good(
        cli("keys", "set", "app", "models=", "expires=", "scopes=chat:write")
    )
    assert "`chat` is none of" in refused(cli("keys", "set", "app", "scopes=chat"))
    assert cli("keys", "revoke", "app").exit_code == 0
    assert looked_up(location, rotated).refused == "revoked"
    assert "a revoked key cannot be rotated" in refused(cli("keys", "rotate", "app"))
    assert cli("keys", "delete", "app", "--yes").exit_code == 0
    assert looked_up(location, rotated) is None


def test_limits_on_the_command_line(cli: Cli, location: Location) -> None:
    good(cli("workspaces", "create", "acme"))
    made = cli("keys", "create", "app", "limits.requests_per_minute=60", "budget.usd_per_month=50")
    assert looked_up(location, good(made).strip()).principal.limited.budget.usd_per_month == 50
    said = good(cli("keys", "set", "app", "limits.requests_per_minute=", "limits.concurrent_requests=4"))
    assert "concurrent_requests = 4" in said
    shown = good(cli("keys", "show", "app"))
    assert "concurrent_requests" in shown
    assert "requests_per_minute" not in shown
    assert "limits.concurrent_requests: expected a whole number" in refused(
        cli("keys", "set", "app", "limits.concurrent_requests=0")
    )
    good(cli("upstreams", "create", "local", URL, "limits.tokens_per_minute=1000"))
    record = json.loads(good(cli("upstreams", "show", "local", "--json")))
    assert record["limits"]["tokens_per_minute"] == 1000


def test_a_key_ends_unless_it_is_told_not_to(cli: Cli) -> None:
    good(cli("workspaces", "create", "acme"))
    day = 86_400_000
    for name, fields, days in (
        ("usual", [], 90),
        ("short", ["expires=1d"], 1),
        ("ever", ["expires=never"], None),
    ):
        made = cli("keys", "create", name, *fields, "--json")
        key = json.loads(good(made))["key"]
        assert key["expires_at"] == (
            None if days is None else pytest.approx(key["created_at"] + days * day, abs=day / 10)
        )
    listed = good(cli("keys", "list"))
    assert [line.split()[2:4] for line in listed.splitlines()[1:]] == [
        ["valid", "models"],
        ["ends", "soon"],
        ["valid", "models"],
    ]
    assert "never ends" in cli("keys", "create", "other", "expires=never").stderr
    good(cli("keys", "set", "usual", "expires=never"))
    assert json.loads(good(cli("keys", "show", "usual", "--json")))["expires_at"] is None


def test_keys_of_ones_own_and_of_admins(cli: Cli, location: Location, tmp_path: Path) -> None:
    good(cli("workspaces", "create", "acme"))
    own = "own-secret-0123456789"
    made = cli("keys", "create", "own", "secret=env:OWN", env={"OWN": own})
    assert good(made) == ""
    assert own not in made.stderr
    assert looked_up(location, own).principal.name == "own"
    (tmp_path / "k").write_text("other-secret-0123456789\n")
    assert good(cli("keys", "rotate", "own", "--secret", f"file:{tmp_path}/k", "--grace", "0s")) == ""
    assert looked_up(location, own) is None
    assert looked_up(location, "other-secret-0123456789") is not None
    assert "others can read" in refused(cli("keys", "rotate", "own", "--secret", own))
    assert cli("keys", "rotate", "own", "--secret", "-", input="third-secret-0123456789\n").exit_code == 0
    assert looked_up(location, "third-secret-0123456789") is not None
    boss = good(cli("keys", "create", "boss", "role=workspace_admin")).strip()
    assert looked_up(location, boss).principal.role == "workspace_admin"
    root = json.loads(good(cli("keys", "create", "root", "--platform", "--json")))
    assert looked_up(location, root["secret"]).principal.role == "platform_admin"
    assert root["key"]["workspace"] == "_platform"
    assert "root" in good(cli("keys", "list", "--platform"))
    assert "~ key roof (operator)" in good(cli("keys", "set", "root", "name=roof", "--platform"))
