"""The guide's examples run and give what it says; the reference is what the docstrings say."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

from sluicegate import tokens

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "tokens.md"


def test_the_examples_of_the_guide() -> None:
    blocks = re.findall(r"^```pycon\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 8
    runner = doctest.DocTestRunner()
    names: dict[str, object] = {}
    failures: list[str] = []
    for number, block in enumerate(blocks):
        example = doctest.DocTestParser().get_doctest(block, names, f"block {number}", str(GUIDE), 0)
        runner.run(example, clear_globs=False, out=failures.append)
        names = example.globs
    assert not failures, "".join(failures)


def test_the_reference_is_what_the_docstrings_say() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "reference"), "--check"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_reference_has_every_name() -> None:
    page = (ROOT / "docs" / "reference" / "tokens.md").read_text()
    for name in tokens.__all__:
        assert re.search(rf"^##+ `{name}\b", page, re.MULTILINE), name
    for method in dir(tokens.Encoding):
        if not method.startswith("_"):
            assert re.search(rf"^- `{method}\b", page, re.MULTILINE), method


def test_every_reason_is_in_the_guide() -> None:
    source = (ROOT / "rust" / "core" / "src" / "tokens" / "chat.rs").read_text()
    codes = re.findall(r'Reason::\w+ => "(\w+)"', source)
    assert len(codes) == 13
    assert all(f"| `{code}` |" in GUIDE.read_text() for code in codes)
