"""Keys: who is calling, and what is said to whom is not known."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.errors import GatewayError
from sluicegate.keys.authenticate import Authenticator
from sluicegate.keys.model import digest, is_mistyped, mint

KEY = "sk-alice-0123456789"
OTHER = "sk-bob-0123456789"
KEYS = Authenticator([("alice", KEY), ("bob", OTHER)])


def refusal(authorization: bytes | None, others: tuple[bytes, ...] = ()) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        KEYS.authenticate(authorization, others)
    return caught.value


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
@pytest.mark.parametrize("space", [" ", "  "])
def test_the_scheme_is_not_case_sensitive(scheme: str, space: str) -> None:
    assert KEYS.authenticate(f"{scheme}{space}{KEY}".encode()).name == "alice"


def test_each_key_is_its_own_principal() -> None:
    alice = KEYS.authenticate(f"Bearer {KEY}".encode())
    bob = KEYS.authenticate(f"Bearer {OTHER}".encode())
    assert (alice.name, bob.name) == ("alice", "bob")
    assert alice.id != bob.id
    assert re.fullmatch(r"key_[0-9a-f]{12}", alice.id)
    assert KEY not in repr(alice)


def test_other_headers_and_the_same_key_twice() -> None:
    assert KEYS.authenticate(None, (KEY.encode(),)).name == "alice"
    assert KEYS.authenticate(f"Bearer {KEY}".encode(), (KEY.encode(), KEY.encode())).name == "alice"


@pytest.mark.parametrize(
    ("authorization", "others"),
    [(f"Bearer {KEY}", (OTHER,)), (f"Bearer {KEY}", (KEY, "x")), (None, (KEY, OTHER)), ("Bearer no", (KEY,))],
)
def test_two_different_keys_are_a_400(authorization: str | None, others: tuple[str, ...]) -> None:
    error = refusal(authorization.encode() if authorization else None, tuple(o.encode() for o in others))
    assert (error.status, error.code) == (400, "conflicting_credentials")


@pytest.mark.parametrize(
    ("authorization", "words"),
    [
        (None, "has no API key"),
        ("", "malformed"),
        ("Bearer", "malformed"),
        ("Bearer ", "malformed"),
        (KEY, "malformed"),
        (f"Basic {KEY}", "malformed"),
        (f"Bearer {KEY} {KEY}", "malformed"),
        ("Bearer " + "x" * 2000, "malformed"),
        (f"Bearer {KEY}x", "not known"),
        (f"Bearer {KEY.upper()}", "not known"),
        (f"Bearer {KEY[:-1]}", "not known"),
    ],
)
def test_a_wrong_key_says_what_to_do(authorization: str | None, words: str) -> None:
    error = refusal(None if authorization is None else authorization.encode())
    assert (error.status, error.code) == (401, "invalid_api_key")
    assert words in error.message
    assert (b"www-authenticate", b"Bearer") in error.headers
    assert KEY not in error.message


@given(st.binary(max_size=80), st.lists(st.binary(max_size=40), max_size=3))
def test_no_other_bytes_are_let_in(authorization: bytes, others: list[bytes]) -> None:
    error = refusal(b"Bearer " + authorization, tuple(others))
    assert error.status in (400, 401)


def test_without_keys_nobody_comes_in() -> None:
    with pytest.raises(GatewayError, match="401"):
        Authenticator([]).authenticate(b"Bearer " + bytes(32))


def test_minted_keys_carry_check_digits() -> None:
    made = [mint() for _ in range(200)]
    assert len(set(made)) == 200
    for key in made:
        assert re.fullmatch(r"sk-sg-[0-9A-Za-z]{12}-[0-9A-Za-z]{49}", key)
        assert not is_mistyped(key)
        assert is_mistyped(key[:-1])
        assert is_mistyped(key[:30] + ("x" if key[30] != "x" else "y") + key[31:])
    assert not is_mistyped("sk-something-else")
    error = refusal(f"Bearer {made[0][:-1]}".encode())
    assert "mistyped or cut off" in error.message


@given(st.binary(max_size=300))
def test_the_digest_of_a_key_is_its_sha256(key: bytes) -> None:
    """What is stored of keys must be found again by whatever made it."""
    assert digest(key) == hashlib.sha256(key).digest()
