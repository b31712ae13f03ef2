"""Texts to measure with, from what every machine with Python has; or from a folder of one's own."""

from __future__ import annotations

import gettext
import json
import sysconfig
from pathlib import Path
from random import Random

# One call each, as a gateway would see them.
DOCUMENT = 16_384
LOCALES = Path("/usr/share/locale")


def corpora(folder: Path | None, megabytes: float) -> dict[str, list[str]]:
    """Documents by name: prose, code, chat, multilingual (where there is any) and short."""
    size = int(megabytes * 1_000_000)
    texts = {"prose": prose(), "code": code(size), "multilingual": multilingual()}
    if folder is not None:
        texts |= {path.stem: path.read_text() for path in sorted(folder.glob("*.txt"))}
    found = {name: documents(text[:size]) for name, text in texts.items() if len(text) > 200_000}
    found["chat"] = chat(found["prose"], found["code"])
    found["short"] = short("".join(found["prose"]))
    order = ("prose", "code", "chat", "multilingual", "short")
    return {name: found[name] for name in order if name in found}


def documents(text: str) -> list[str]:
    return [text[at : at + DOCUMENT] for at in range(0, len(text), DOCUMENT)]


def prose() -> str:
    """Python's own language reference, as its help() shows it: half a megabyte of English."""
    from pydoc_data import topics  # noqa: PLC0415

    return "\n\n".join(topics.topics.values())


def code(size: int) -> str:
    """The standard library."""
    found, length = [], 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        found.append(path.read_text(errors="replace"))
        length += len(found[-1])
        if length > size:
            break
    return "".join(found)


def multilingual() -> str:
    """Translated messages of the system's programs, shuffled: some forty languages, where installed."""
    messages: list[str] = []
    for path in sorted(LOCALES.glob("*/LC_MESSAGES/*.mo")):
        if path.parts[-3].startswith("en"):
            continue
        try:
            with path.open("rb") as file:
                catalog = gettext.GNUTranslations(file)
        except (OSError, UnicodeError, ValueError, IndexError):  # odd files of the system
            continue
        texts = getattr(catalog, "_catalog", {}).values()
        messages += [text for text in texts if isinstance(text, str) and not text.isascii()]
    Random(1).shuffle(messages)
    return "\n".join(messages)


def chat(prose_: list[str], code_: list[str]) -> list[str]:
    """Bodies of chat requests: questions with code in them, as JSON."""
    random, bodies = Random(2), []
    for text, source in zip(prose_, code_, strict=False):
        messages = [{"role": "system", "content": "You are a helpful assistant."}]
        for _ in range(8):
            at = random.randrange(len(source) - 1000)
            content = text[at : at + 700] + "\n```python\n" + source[at : at + 900] + "\n```\n"
            messages.append({"role": random.choice(["user", "assistant"]), "content": content})
        bodies.append(json.dumps({"model": "gpt-4o", "stream": True, "messages": messages}))
    return bodies


def short(text: str) -> list[str]:
    """2,000 messages of 20 to 2,000 characters."""
    random = Random(3)
    places = ((random.randrange(len(text) - 2000), int(20 * 100 ** random.random())) for _ in range(2000))
    return [text[at : at + length] for at, length in places]
