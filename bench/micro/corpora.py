"""Texts to measure with, from what every machine with Python has; or from a folder of one's own.

`python -m bench.micro.corpora FOLDER` writes more than 30 MB of them, to compare ids with tiktoken's:
`SLUICEGATE_TOKEN_CORPORA=FOLDER SLUICEGATE_TOKEN_STRINGS=1000000 pytest tests/tokens/test_corpora.py`.
"""

from __future__ import annotations

import gettext
import gzip
import json
import sys
import sysconfig
import unicodedata
from importlib.metadata import distributions
from pathlib import Path
from random import Random

# One call each, as a gateway would see them.
DOCUMENT = 16_384
LOCALES = Path("/usr/share/locale")
MANUAL = Path("/usr/share/man")


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
    """English: Python's own language reference, as help() shows it, and what the installed packages say of
    themselves.
    """
    from pydoc_data import topics  # noqa: PLC0415

    said = sorted(str(package.metadata.get_payload()) for package in distributions())
    return "\n\n".join([*topics.topics.values(), *said])


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
    # The last document of each is what was left over.
    for text, source in zip(prose_[:-1], code_[:-1], strict=False):
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


def manual(size: int) -> str:
    """Manual pages of all sections and languages, where installed."""
    pages = sorted(MANUAL.glob("**/man?/*.gz"))
    Random(4).shuffle(pages)
    found, length = [], 0
    for page in pages:
        try:
            found.append(gzip.decompress(page.read_bytes()).decode(errors="replace"))
        except (OSError, EOFError):  # a link to nowhere
            continue
        length += len(found[-1])
        if length > size:
            break
    return "".join(found)


def emoji(count: int) -> str:
    """Words between emoji of every kind: alone, with tones, joined, flags."""
    points = [point for point in range(0x2600, 0x1FB00) if unicodedata.category(chr(point)) == "So"]
    random, parts = Random(5), []
    for _ in range(count):
        one, other, region = (chr(random.choice(points)) for _ in range(3))
        flag = "".join(chr(0x1F1E6 + random.randrange(26)) for _ in range(2))
        tone = chr(0x1F3FB + random.randrange(5))
        parts += [one, one + tone, f"{one}\u200d{other}", f"{region}\ufe0f", flag, " word ", "\n"]
    return "".join(parts)


def scripts(text: str) -> set[str]:
    """The scripts of its letters, by the first word of their names."""
    letters = {character for character in set(text) if character.isalpha()}
    return {unicodedata.name(letter, "?").split()[0].split("-")[0] for letter in letters} - {
        "?",
        "MATHEMATICAL",
    }


def write(folder: Path) -> None:
    """All of them as files, and what they are."""
    folder.mkdir(parents=True, exist_ok=True)
    size = 10_000_000
    texts = {"prose": prose(), "code": code(size), "manual": manual(size), "emoji": emoji(40_000)}
    texts["multilingual"] = multilingual()[: 2 * size]
    bodies = chat(documents(texts["manual"]), documents(texts["code"]))
    texts["chat"] = "\n".join(
        [*bodies, *(json.dumps(json.loads(body), ensure_ascii=False) for body in bodies)]
    )
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
        print(f"{name:14} {len(text.encode()) / 1e6:6.1f} MB, {len(scripts(text))} scripts")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
