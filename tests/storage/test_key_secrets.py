"""The text of a key: read, minted, and never mistaken for another's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.keys import secret


@pytest.mark.parametrize("kind", ["client", "admin"])
def test_what_is_minted_is_read(kind: secret.Kind) -> None:
    made = [secret.mint(kind) for _ in range(100)]
    assert len(set(made)) == 100
    for key in made:
        found = secret.read(key)
        assert found is not None
        assert found.kind == kind
        assert f"-{found.kid}-" in key
        assert not secret.is_mistyped(key)
        assert secret.last_digits(key) == key[-4:]


@given(st.integers(0, 200), st.sampled_from("0aZ-_ é\x00"))
def test_every_typo_is_noticed(at: int, character: str) -> None:
    key = secret.mint()
    at %= len(key)
    changed = key[:at] + character + key[at + 1 :]
    if changed != key:
        assert secret.read(changed) is None
        assert at < 6 or secret.is_mistyped(changed)


@given(st.text(max_size=100))
def test_other_texts_are_no_keys(text: str) -> None:
    assert secret.read(text) is None
    assert secret.read("sk-sg-" + text) is None


def test_digests_depend_on_pepper_and_use() -> None:
    key = b"sk-something"
    digests = {secret.peppered(b"a" * 32, key), secret.peppered(b"b" * 32, key), secret.digest(key)}
    assert len(digests) == 3
    assert secret.lookup_of(b"a" * 32, key) != secret.peppered(b"a" * 32, key).hex()[:32]
    assert secret.last_digits("short-secret") == ""
