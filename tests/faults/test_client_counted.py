"""C19 where the gateway counts: text that is hard for a tokenizer delays nobody, and is counted."""

from __future__ import annotations

import asyncio
import json
import random
import string
from collections.abc import Iterator

import pytest

from faults.client import KEY, Answer, ask, body_for
from faults.content import TEXT
from faults.rig import Rig
from processes import Server, gateway
from tokens.token_oracles import trained

pytestmark = pytest.mark.timeout(180)

MIB = 1 << 20
# Below the bytes of the texts, so that their length proves nothing, and above their tokens.
WINDOW = 1_000_000
TINY_WINDOW = 1000
# At once, each a little different, so that none is remembered from another.
HOSTILE = 12
# On the loop, one after the other, the slowest would take ten times as long. The witness of `pace.py` is
# another gateway than the one that counts.
UNDELAYED = 0.4

_random = random.Random(7)
HARD_TEXTS = {
    "one-letter": "a" * MIB,
    "carets": "^" * 1_000_000,
    "joined-emoji": "👩\u200d" * 150_000,
    "random-letters": "".join(_random.choices(string.ascii_lowercase, k=MIB)),
}


@pytest.fixture(scope="module")
def counting(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A gateway of its own that has to count: by a bundled encoding, and by a file."""
    folder = tmp_path_factory.mktemp("counting")
    trained("byte_level", [TEXT, "some words of English and a few more of them"]).save(
        str(folder / "tokenizer.json")
    )
    upstream = f"http://127.0.0.1:{rig.upstream.ports['main']}/v1"
    entries = [
        ("bundled", "o200k_base", WINDOW),
        ("filed", "./tokenizer.json", WINDOW),
        ("tiny", "o200k_base", TINY_WINDOW),
    ]
    settings = "".join(
        f'[[upstreams]]\nname = "{name}"\nbase_url = "{upstream}"\nmodels = ["{name}"]\n'
        f'aliases = {{ "{name}" = "ok" }}\ntokenizers = {{ "ok" = "{tokenizer}" }}\n'
        f'context_lengths = {{ "ok" = {window} }}\n\n'
        for name, tokenizer, window in entries
    )
    with gateway(settings, folder, keys=KEY) as server:
        yield server


@pytest.mark.parametrize("model", ["bundled", "filed"])
@pytest.mark.parametrize("name", HARD_TEXTS)
def test_hard_text_is_counted_and_delays_nobody(name: str, model: str, counting: Server, rig: Rig) -> None:
    # A file's library is slow: beyond a mebibyte it is not even asked.
    text = HARD_TEXTS[name][: 900_000 if model == "filed" else None]

    async def hostile(number: int) -> Answer:
        content = f"{number} {text}"
        body = body_for("chat", model, messages=[{"role": "user", "content": content}])
        return await ask(counting.port, "chat", json.dumps(body, ensure_ascii=False).encode())

    async def all_of_them() -> list[float]:
        hard = [asyncio.create_task(hostile(number)) for number in range(HOSTILE)]
        others = []
        while not all(task.done() for task in hard):
            others.append(await ask(counting.port, "chat", body_for("chat", model)))
        for answer in await asyncio.gather(*hard):
            assert (answer.status, answer.text) == (200, TEXT), answer
        assert {other.text for other in others} == {TEXT}
        return [
            await asyncio.to_thread(rig.pace.seconds, other.began, other.began + other.seconds)
            for other in others
        ]

    took = asyncio.run(all_of_them())
    assert max(took) <= UNDELAYED, sorted(took)[-5:]


def test_hard_text_is_refused_with_its_exact_number(counting: Server) -> None:
    """A mebibyte of one letter: eight to a token, and 4 of the message."""
    body = body_for("chat", "tiny", messages=[{"role": "user", "content": "a" * MIB}])
    answer = asyncio.run(ask(counting.port, "chat", body))
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert f"maximum context length is {TINY_WINDOW} tokens" in answer.error["message"]
    assert f"about {MIB // 8 + 7} tokens (their text is counted" in answer.error["message"]
