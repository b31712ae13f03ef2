"""Every example of the guides runs as it stands, against the demo upstream."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from processes import Server

GUIDES = Path(__file__).parents[2] / "docs" / "guides"


def blocks(page: str) -> list[tuple[int, str]]:
    """The Python examples of a page, with their lines."""
    text = (GUIDES / page).read_text()
    found = re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)), match[1]) for match in found]


@pytest.mark.parametrize(("page", "least"), [("client.md", 12), ("sse.md", 5)])
def test_examples_run(
    demo: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], page: str, least: int
) -> None:
    monkeypatch.setenv("OPENAI_COMPATIBLE_BASE_URL", demo.base_url)
    monkeypatch.setenv("OPENAI_COMPATIBLE_MODEL", "demo-fast")
    # Later examples use the names of earlier ones, as a reader does.
    names: dict[str, Any] = {"__name__": "guide"}
    examples = blocks(page)
    assert len(examples) >= least
    for line, code in examples:
        # So many empty lines before it that an error names the line of the page.
        exec(compile("\n" * line + code, str(GUIDES / page), "exec"), names)
    shown = capsys.readouterr().out
    if page == "client.md":
        for text in (
            "weather {",
            "River(name=",
            "UnreachableError Nothing answers",
            "chat demo-fast:",
            "stop Usage(",
        ):
            assert text in shown
        assert shown.count("chat demo-fast:") == 1, "the second answer comes from the cache"
    else:
        assert "tick 1 one\nmessage 1 two\nlines\n" in shown
        assert "from httpx" in shown
        assert r"b'id: 7\nevent: tick\ndata: two\ndata: lines\n\n'" in shown
