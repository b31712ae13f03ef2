"""`tokenizers` of upstreams in the database: who may name what, where it is kept, and that it counts."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from pathlib import Path

import pytest
from test_config import applied
from test_serving import do

from fakes.tenants import Tenants
from served import served
from sluicegate.config.export import export
from sluicegate.config.reader import ConfigError
from sluicegate.storage.database import Database
from sluicegate.storage.errors import InvalidError
from sluicegate.storage.location import Location
from sluicegate.tokens.encoding import get_encoding
from sluicegate.upstreams import store
from sluicegate.upstreams.kept import config_of
from sluicegate.upstreams.record import NO_CREDENTIALS
from sluicegate.upstreams.tokenizers import tokenizer_name

FILE = """
[[workspace]]
id = "acme"

[[workspace.upstream]]
name = "local"
base_url = "http://127.0.0.1:8000/v1"
tokenizers = {{ m = "{name}" }}
"""


@pytest.mark.asyncio
async def test_it_is_kept_and_counts(tenants: Tenants, database: Database) -> None:
    await tenants.workspace("acme")
    made = await tenants.upstream(
        "acme", "own", "http://h/v1", tokenizers={"m": "o200k_base", "n": "/t.json"}
    )
    async with database.read() as view:
        record = await store.get(view, "acme", made)
        assert store.draft_of(record).tokenizers == {"m": "o200k_base", "n": "/t.json"}
        config = config_of(record, NO_CREDENTIALS, ())
    assert [tokenizer_name(config, model) for model in ("m", "n", "x")] == ["o200k_base", "/t.json", None]


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["o300k_base", "tokenizer.json", "models/t", "../t.json", ""])
async def test_what_is_neither_an_encoding_nor_a_path(tenants: Tenants, name: str) -> None:
    await tenants.workspace("acme")
    with pytest.raises(InvalidError, match="tokenizers"):
        await tenants.upstream("acme", "own", "http://h/v1", tokenizers={"m": name})


@pytest.mark.asyncio
async def test_a_file_says_it_and_gets_it_back(database: Database) -> None:
    await applied(database, FILE.format(name="cl100k_base"))
    async with database.read() as view:
        assert 'tokenizers = { m = "cl100k_base" }' in await export(view)
    for name, said in (("o300k_base", "o300k_base"), ("nothing.json", "nothing.json"), ("/dev/null", "")):
        with pytest.raises(ConfigError, match=r":8: workspace\[0\].upstream\[0\].tokenizers.m: .*" + said):
            await applied(database, FILE.format(name=name))
    async with database.read() as view:
        assert 'tokenizers = { m = "cl100k_base" }' in await export(view)


def test_a_prompt_is_counted_with_it(location: Location, tmp_path: Path) -> None:
    async def work(tenants: Tenants) -> str:
        await tenants.workspace("acme")
        for name, tokenizers in (("counted", {"m": "o200k_base"}), ("guessed", {})):
            lengths = {"m": 100}
            await tenants.upstream(
                "acme",
                name,
                "http://127.0.0.1:9/v1",
                models=("m",),
                context_lengths=lengths,
                tokenizers=tokenizers,
            )
            await tenants.assistant("acme", name, f"{name}/m")
        return (await tenants.key("acme"))[1]

    key = do(location, work)
    text = "several words of a prompt " * 50
    tokens = len(get_encoding("o200k_base").encode(text))
    with served(location, tmp_path) as gateway:
        messages = {name: refusal(gateway.port, key, name, text) for name in ("counted", "guessed")}
    assert "their text is counted" in messages["counted"]
    assert any(f"about {tokens + more} tokens" in messages["counted"] for more in range(20))
    assert "estimated from their length" in messages["guessed"]


def refusal(port: int, key: str, model: str, text: str) -> str:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}]})
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", body, headers)
        error = json.loads(connection.getresponse().read())["error"]
        assert error["code"] == "context_length_exceeded", error
        return str(error["message"])
    finally:
        connection.close()
