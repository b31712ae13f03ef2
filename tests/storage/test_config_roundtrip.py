"""What was exported, applied again, changes nothing: for any configuration, on both databases."""

from __future__ import annotations

import asyncio
import os
from itertools import count
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_config import applied, exported, options, plan_of

from sluicegate.assistants.model import LOCKABLE, AssistantSpec
from sluicegate.config.plain import plain_of
from sluicegate.keys.model import Scope
from sluicegate.storage.database import Database
from sluicegate.storage.location import Location
from sluicegate.toml_text import key_text, value_text
from sluicegate.upstreams.profile import PROFILES

# More with TEST_CONFIGS=1000.
EXAMPLES = int(os.environ.get("TEST_CONFIGS", "25"))
_numbers = count(1)

# Words that another format could take for something else, and whatever text there is.
TEXT = st.sampled_from(
    ["null", "true", "1", "json:", "kept", "", '"""', "a\nb", "a\r\nb", "\x7f\x00"]
) | st.text(max_size=40)
NAMES = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}\Z")
FREE_NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
MODELS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
TOKENS = st.integers(1, 100_000_000)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 53), 1 << 53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=3)


def some(**strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A dictionary with any of these keys."""
    return st.fixed_dictionaries({}, optional=strategies)


LIMITS = some(
    requests_per_minute=st.integers(1, 1_000_000_000),
    tokens_per_day=st.integers(1, 1_000_000_000_000),
    concurrent_requests=st.integers(1, 1_000_000),
)
BUDGETS = some(
    usd_per_month=st.floats(0, 1_000_000_000) | st.integers(0, 100),
    tokens_total=st.integers(0, 1 << 50),
    warn_percent=st.integers(1, 100),
)
UPSTREAMS = st.builds(
    lambda name, url, more: {"name": name, "base_url": url} | more,
    NAMES,
    st.sampled_from(["http://127.0.0.1:8000/v1", "https://h.example", "https://[::1]:1/v1/é"]),
    some(
        kind=st.sampled_from(list(PROFILES)),
        models=st.lists(MODELS, max_size=3),
        aliases=st.dictionaries(MODELS, MODELS, max_size=2),
        weight=st.integers(0, 1000),
        priority=st.integers(0, 100),
        timeouts=some(connect=st.floats(0.001, 86400), idle=st.integers(1, 86400)),
        context_lengths=st.dictionaries(MODELS, TOKENS, max_size=2),
        enabled=st.booleans(),
        limits=LIMITS,
        api_key=st.sampled_from(["env:LOCAL", "env:SHARED"]),
        headers=some(**{"x-team": st.sampled_from(["env:TEAM", "text:a b"]), "x-other": st.just("text:c")}),
    ),
)
SPECS = st.builds(
    lambda model, more: {"model": model} | more,
    st.lists(st.builds("{}/{}".format, NAMES, MODELS), min_size=1, max_size=3, unique=True),
    some(
        description=TEXT,
        system_prompt=TEXT,
        chat_history=st.sampled_from(["default_on", "disable_think", "off"]),
        quality_score=st.integers(0, 100),
        temperature=st.floats(0, 2) | st.integers(0, 2),
        max_tokens=TOKENS,
        top_p=st.floats(0, 1),
        stop=st.lists(TEXT.filter(bool), max_size=3),
        response_format=OBJECTS,
        tools=st.lists(OBJECTS, max_size=2),
        tool_choice=TEXT | OBJECTS,
        parallel_tool_calls=st.booleans(),
        presence_penalty=st.floats(-2, 2),
        seed=st.integers(-(1 << 63), (1 << 63) - 1),
        reasoning_effort=TEXT.filter(lambda text: len(text) <= 32),
        locked=st.lists(st.sampled_from(LOCKABLE), max_size=4),
    ),
).map(lambda values: plain_of(msgspec.convert(values, AssistantSpec), AssistantSpec))
KEYS = some(
    scopes=st.lists(st.sampled_from(list(msgspec.inspect.type_info(Scope).values)), max_size=3),
    models=st.lists(MODELS, max_size=3),
    expires=st.integers(0, 1 << 53),
    role=st.sampled_from(["workspace_admin", "member", "viewer"]),
) | some(models=st.lists(MODELS, max_size=3), limits=LIMITS, budget=BUDGETS)
WORKSPACES = some(
    name=FREE_NAMES,
    public_base_url=st.just("https://ai.example/v1"),
    context_window=st.integers(1, 99_999_999) | st.builds("{}%".format, st.integers(1, 100)),
    max_tokens=TOKENS,
    default_upstream=NAMES,
    allowed_models=st.lists(MODELS, max_size=3),
    plain_models=st.booleans(),
    retention_days=st.integers(0, 36_500),
    bodies=some(days=st.integers(0, 365), max_bytes=st.integers(256, 1 << 20)),
    limits=LIMITS,
    budget=BUDGETS,
)
CONFIGS = st.fixed_dictionaries(
    {
        "platform": st.lists(
            st.tuples(UPSTREAMS, st.sampled_from(["all", "none", "some"])),
            max_size=2,
            unique_by=lambda u: u[0]["name"],
        ),
        "spaces": st.lists(
            st.fixed_dictionaries(
                {
                    "settings": WORKSPACES,
                    "upstreams": st.lists(UPSTREAMS, max_size=2, unique_by=lambda u: u["name"]),
                    "assistants": st.dictionaries(FREE_NAMES, SPECS, max_size=2),
                    "keys": st.dictionaries(FREE_NAMES, KEYS, max_size=2),
                }
            ),
            max_size=2,
        ),
    }
)


def table(heading: str, values: dict[str, Any]) -> str:
    """One table; here every value stands on one line."""
    return "\n".join(
        [heading, *(f"{key_text(key)} = {value_text(value)}" for key, value in values.items()), ""]
    )


def file_of(config: dict[str, Any]) -> str:
    """The file; ids are new each time, because those of deleted workspaces stay taken."""
    ids = [f"w{next(_numbers)}" for _ in config["spaces"]]
    parts = []
    for upstream, offer in config["platform"]:
        parts.append(table("[[upstream]]", upstream | {"offered_to": ids if offer == "some" else offer}))
    for workspace, space in zip(ids, config["spaces"], strict=True):
        parts.append(table("[[workspace]]", {"id": workspace} | space["settings"]))
        parts += [table("[[workspace.upstream]]", upstream) for upstream in space["upstreams"]]
        parts += [
            table("[[workspace.assistant]]", {"name": name} | spec)
            for name, spec in space["assistants"].items()
        ]
        parts += [table("[[workspace.key]]", {"name": name} | key) for name, key in space["keys"].items()]
    return "\n".join(parts)


async def check(location: Location, config: dict[str, Any]) -> None:
    database = await Database.open(location)
    text = file_of(config)
    everything = options(prune=True)
    try:
        await applied(database, text, everything)
        assert (await plan_of(database, text, everything)).steps == ()
        written = await exported(database)
        again = await plan_of(database, written, everything)
        assert (again.steps, again.unmanaged) == ((), ())
        await applied(database, written, everything)
        assert await exported(database) == written
    finally:
        await database.close()


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(config=CONFIGS)
def test_any_configuration_survives(location: Location, config: dict[str, Any]) -> None:
    asyncio.run(check(location, config))
