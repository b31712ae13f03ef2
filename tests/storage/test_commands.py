"""The commands on the database: what they print, what they refuse, and where secrets may be seen."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

from command_line import Cli, good, refused
from sqlalchemy import text as sql

from sluicegate.storage.database import Database
from sluicegate.storage.location import Location
from sluicegate.upstreams import store as upstreams

URL = "base_url=http://127.0.0.1:8000/v1"
CANARY = "upstream-canary-0123456789"


def test_workspaces(cli: Cli) -> None:
    assert "workspaces create ID" in cli("workspaces", "list").stderr
    assert "there is no workspace yet" in refused(cli("keys", "list"))
    assert "lower-case" in refused(cli("workspaces", "create", "Acme"))
    assert '+ workspace acme\n    context_window = "40%"\n' in good(
        cli(
            "workspaces",
            "create",
            "acme",
            "context_window=40%",
            "max_tokens=1024",
            "allowed_models=a*",
            "allowed_models=b",
        )
    )
    assert "`workspaces set` changes it" in refused(cli("workspaces", "create", "acme"))
    assert refused(cli("workspaces", "set", "acme", "max_token=1")) == (
        "max_token: unknown key. Did you mean `max_tokens`?"
    )
    assert refused(cli("workspaces", "set", "acme", "max_tokens=lots")) == (
        "max_tokens: expected a whole number, got a text"
    )
    assert "expected FIELD=VALUE" in refused(cli("workspaces", "set", "acme", "max_tokens"))
    changed = good(
        cli("workspaces", "set", "acme", "max_tokens=", "context_window=4096", "plain_models=false")
    )
    assert '    context_window: "40%" → 4096\n' in changed
    assert "    - max_tokens = 1024\n" in changed
    shown = json.loads(good(cli("workspaces", "show", "acme", "--json")))
    assert (
        shown["settings"] | {"context_window": "4096", "plain_models": False, "max_tokens": None}
        == shown["settings"]
    )
    assert shown["settings"]["allowed_models"] == ["a*", "b"]
    assert "Did you mean `acme`? `sluicegate workspaces list` shows all" in refused(
        cli("workspaces", "show", "acm")
    )
    assert "give --yes" in refused(cli("workspaces", "delete", "acme"))
    assert cli("workspaces", "delete", "acme", "--yes").exit_code == 0
    assert json.loads(good(cli("workspaces", "list", "--json"))) == []


def test_the_only_workspace_is_meant(cli: Cli) -> None:
    good(cli("workspaces", "create", "acme"))
    good(cli("keys", "create", "app"))
    good(cli("workspaces", "create", "beta"))
    assert "which workspace? Give --workspace, one of: acme, beta" in refused(cli("keys", "list"))
    assert "app" in good(cli("keys", "list", "-w", "acme"))
    assert "there is no workspace `acne`. Did you mean `acme`?" in refused(cli("keys", "list", "-w", "acne"))
    assert "either --workspace or --platform" in refused(cli("keys", "list", "-w", "acme", "--platform"))


def test_upstreams(cli: Cli, location: Location) -> None:
    good(cli("workspaces", "create", "acme"))
    refusal = refused(cli("upstreams", "create", "local", URL, f"api_key={CANARY}"))
    assert "env:NAME or file:PATH" in refusal
    assert CANARY not in refusal
    assert "the variable NONE is not set" in refused(
        cli("upstreams", "create", "local", URL, "api_key=env:NONE")
    )
    assert "Did you mean `vllm`?" in refused(cli("upstreams", "create", "local", URL, "kind=vlm"))
    made = cli(
        *(
            "upstreams",
            "create",
            "local",
            URL,
            "kind=vllm",
            "api_key=-",
            "aliases.fast=m.1",
            "timeouts.connect=2",
        ),
        *("context_lengths.m.1=4096", "headers.x-team=text:a b"),
        input=CANARY,
    )
    assert "+ upstream acme/local" in good(made)
    assert CANARY not in made.output
    record = json.loads(good(cli("upstreams", "show", "local", "--json")))
    assert record["aliases"] == {"fast": "m.1"}
    assert record["context_lengths"] == {"m.1": 4096}
    assert record["timeouts"]["connect"] == 2.0
    assert (record["key_last4"], record["header_names"]) == ("6789", ["x-team"])
    good(cli("upstreams", "set", "local", "weight=3", "aliases.fast=", "aliases.slow=m.1"))
    assert stored_key(location) == CANARY
    assert re.search(r"^m\.1 +4096 .* slow +set", good(cli("upstreams", "models", "local")), re.MULTILINE)
    good(cli("upstreams", "create", "shared", "--platform", "base_url=https://h.example", "offered_to=acme"))
    listed = good(cli("upstreams", "list"))
    assert "operator" in listed
    assert "…6789" in listed
    assert CANARY not in listed
    good(cli("assistants", "create", "coder", "model=local/m.1"))
    assert "still used by: assistant «coder»" in refused(cli("upstreams", "delete", "local", "--yes"))
    moved = good(cli("upstreams", "set", "local", "base_url=http://10.0.0.1:8000/v1"))
    assert "- api_key = (stored)" in moved
    assert stored_key(location) is None
    good(cli("assistants", "delete", "coder", "--yes"))
    good(cli("upstreams", "delete", "local", "--yes"))
    assert "there is no upstream `local`" in refused(cli("upstreams", "show", "local"))


def stored_key(location: Location) -> str | None:
    async def read() -> str | None:
        database = await Database.open(location)
        async with database.read() as view:
            found = await upstreams.find(view, "acme", "local")
            assert found is not None
            key = (await upstreams.own_credentials(view, "acme", found.id)).api_key
        await database.close()
        return None if key is None else key.reveal()

    return asyncio.run(read())


def test_assistants(cli: Cli, tmp_path: Path) -> None:
    good(cli("workspaces", "create", "acme"))
    (tmp_path / "prompt.md").write_text("You write code.\n")
    made = cli(
        *("assistants", "create", "qwen3 coder", "model=local/a", "model=local/b", "temperature=0"),
        *(f"system_prompt=@{tmp_path}/prompt.md", 'response_format={"type": "json_object", "x": null}'),
        *("locked=temperature", "locked=model", 'tools=[{"type": "function"}]', "tool_choice=auto"),
    )
    assert good(made)
    assert "there is no upstream `local` that this workspace may use" in made.stderr
    spec = json.loads(good(cli("assistants", "show", "qwen3 coder", "--json")))["spec"]
    assert spec["model"] == ["local/a", "local/b"]
    assert (spec["temperature"], spec["system_prompt"]) == (0, "You write code.\n")
    assert spec["response_format"] == {"type": "json_object", "x": None}
    assert (spec["tools"], spec["tool_choice"]) == ([{"type": "function"}], "auto")
    assert sorted(spec["locked"]) == ["model", "temperature"]
    changed = good(
        cli("assistants", "set", "qwen3 coder", "model=local/c", "system_prompt=You.\nGo.", "tools=")
    )
    assert 'model: ["local/a", "local/b"] → ["local/c"]' in changed
    assert "Nothing to change." in cli("assistants", "set", "qwen3 coder", "model=local/c").stderr
    versions = json.loads(good(cli("assistants", "versions", "qwen3 coder", "--json")))
    assert [version["version"] for version in versions] == [2, 1]
    assert versions[0]["by"].startswith("cli")
    assert "has no version 9" in refused(cli("assistants", "rollback", "qwen3 coder", "9"))
    good(cli("assistants", "rollback", "qwen3 coder", "1"))
    newest = good(cli("assistants", "versions", "qwen3 coder")).splitlines()[1]
    assert "model, system_prompt, tools" in newest
    assert json.loads(good(cli("assistants", "show", "qwen3 coder", "--json")))["spec"] == spec
    good(cli("assistants", "set", "qwen3 coder", "name=coder"))
    assert "coder" in good(cli("assistants", "list"))
    assert "slash" in refused(cli("assistants", "set", "coder", "model=a"))
    assert "cannot be read" in refused(cli("assistants", "set", "coder", "system_prompt=@none"))


def test_members_and_the_log(cli: Cli, location: Location) -> None:
    good(cli("workspaces", "create", "acme"))
    assert cli("members", "add", "ada", "--role", "workspace_admin").exit_code == 0
    assert cli("members", "add", "root", "--platform").exit_code == 0
    assert (
        json.loads(good(cli("members", "list", "--json")))[0] | {"login": "ada", "role": "workspace_admin"}
        == (json.loads(good(cli("members", "list", "--json")))[0])
    )
    assert "last administrator" in refused(cli("members", "disable", "root"))
    assert cli("members", "disable", "ADA").exit_code == 0
    assert [user["disabled"] for user in json.loads(good(cli("members", "users", "--json")))] == [True, False]
    assert "Did you mean `ada`?" in refused(cli("members", "remove", "adda", "--yes"))
    assert cli("members", "remove", "ada", "--yes").exit_code == 0
    log = json.loads(good(cli("audit", "list", "--json")))
    assert [entry["action"] for entry in log][:2] == ["member.withdraw", "user.disable"]
    assert len(json.loads(good(cli("audit", "list", "--json", "--limit", "3")))) == 3
    assert {
        entry["workspace"] for entry in json.loads(good(cli("audit", "list", "-w", "acme", "--json")))
    } == {"acme"}
    assert "member.withdraw" in good(cli("audit", "list", "--action", "member.withdraw"))
    assert f"All {len(log)} entries" in good(cli("audit", "verify"))
    asyncio.run(tamper(location))
    broken = cli("audit", "verify")
    assert broken.exit_code == 1
    assert "Entry 2 is missing, or not as it was written." in broken.stdout


async def tamper(location: Location) -> None:
    database = await Database.open(location)
    async with database.note() as view:
        await view.execute(sql("UPDATE audit SET actor = 'nobody' WHERE sequence = 2"))
    await database.close()


def test_apply_and_export(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('[[workspace]]\nid = "acme"\n[[workspace.key]]\nname = "app"\n')
    assert "give --yes" in refused(cli("apply", "-f", str(file)))
    checked = cli("apply", "-f", str(file), "--check")
    assert (checked.exit_code, "+ key acme/app" in checked.stdout) == (1, True)
    assert cli("apply", "-f", str(file), "--dry-run").exit_code == 0
    assert json.loads(good(cli("workspaces", "list", "--json"))) == []
    applied = good(cli("apply", "-f", str(file), "--yes"))
    assert "2 to create." in applied
    assert applied.count("sk-sg-") == 1
    assert good(cli("apply", "-f", str(file), "--yes")) == "Nothing to change.\n"
    assert good(cli("apply", "-f", str(file), "--check")) == "Nothing to change.\n"
    written = good(cli("export"))
    assert good(cli("apply", "-f", "-", "--yes", input=written)) == "Nothing to change.\n"
    assert cli("export", "-o", str(tmp_path / "out.toml")).exit_code == 0
    assert (tmp_path / "out.toml").read_text() == written
    assert "--force" in refused(cli("export", "-o", str(tmp_path / "out.toml")))
    assert "there is no workspace `beta`" in refused(cli("export", "-w", "beta"))
    document = json.loads(
        good(
            cli(
                "apply",
                "-f",
                "-",
                "--yes",
                "--json",
                input='[[workspace]]\nid="b"\n[[workspace.key]]\nname="k"',
            )
        )
    )
    assert [change["kind"] for change in document["changes"]] == ["workspace", "key"]
    assert document["keys"][0]["secret"].startswith("sk-sg-")
    assert document["not_in_file"] == [{"kind": "workspace", "workspace": "acme", "name": "acme"}]
    pruned = good(cli("apply", "-f", str(file), "--yes", "--prune"))
    assert "- workspace b\n" in pruned


def test_errors_of_a_file_are_lines(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('[[workspace]]\nid = "acme"\nmax_token = 1\n\n[[workspace]]\nid = "B"\n')
    result = cli("apply", "-f", str(file), "--yes")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"sluicegate: {file}:3: workspace[0].max_token: unknown key. Did you mean `max_tokens`?",
        f"sluicegate: {file}:6: workspace[1].id: expected 1 to 63 lower-case letters, digits and hyphens, "
        "no hyphen at either end",
    ]
    assert "cannot be read" in refused(cli("apply", "-f", str(tmp_path / "none.toml"), "--yes"))
    assert "not valid UTF-8" in refused(cli("apply", "-f", "-", "--yes", input=b"\xff"))


def test_a_database_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    down = {"SLUICEGATE_DATABASE_URL": "postgresql://nobody:pg-canary@127.0.0.1:1/none"}
    line = refused(cli("workspaces", "list", env=down))
    assert "cannot be reached" in line
    assert "pg-canary" not in line
    (tmp_path / "file").write_text("")
    assert "data directory" in refused(
        cli(
            "workspaces",
            "list",
            env={"SLUICEGATE_DATA_DIR": str(tmp_path / "file" / "x"), "SLUICEGATE_DATABASE_URL": ""},
        )
    )
