"""The catalog: exact names, open and closed lists, the default, and the built-in list."""

from __future__ import annotations

import pytest

from sluicegate.errors import GatewayError
from sluicegate.fallback import FALLBACK_DEFAULT, FALLBACK_MODELS
from sluicegate.models.catalog import Catalog, Source

A = Source("A", "a", ("big", "org/small"), {"fast": "org/small"})
B = Source("B", "b", ("big",), {"big": "b-big-2", "only-b": "x"})
OPEN = Source("O", "o", None, {})


def refusal(catalog: Catalog[str], model: str) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        catalog.resolve(model)
    return caught.value


def test_names_aliases_and_all_who_serve_them() -> None:
    catalog = Catalog([A, B], None, 7)
    assert catalog.resolve("org/small").candidates == (("A", "org/small"),)
    assert catalog.resolve("fast") == ("fast", (("A", "org/small"),))
    # An alias goes before the upstream's own name.
    assert catalog.resolve("big").candidates == (("A", "big"), ("B", "b-big-2"))
    assert [c.id for c in catalog.cards()] == ["big", "org/small", "fast", "only-b"]
    assert [c.owned_by for c in catalog.cards()] == ["a", "a", "a", "b"]
    assert catalog.card("fast").created == 7


def test_an_unknown_name_is_a_404_that_helps() -> None:
    catalog = Catalog([A], None, 7)
    error = refusal(catalog, "BIG")
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert "`big` does" in error.message
    assert "GET /v1/models" in refusal(catalog, "huge").message
    assert "\n" not in refusal(catalog, "a\nb").message


@pytest.mark.parametrize("model", ["Big", "big ", " big", "bi", "", "small", "ORG/small", "x"])
def test_names_are_exact(model: str) -> None:
    assert refusal(Catalog([A, B], None, 7), model).status == 404


def test_open_lists_take_unknown_names_too() -> None:
    catalog = Catalog([A, OPEN], None, 7)
    assert catalog.resolve("whatever").candidates == (("O", "whatever"),)
    assert catalog.resolve("big").candidates == (("A", "big"),)
    catalog.learn("o", dict.fromkeys(("big", "own")))
    assert catalog.resolve("big").candidates == (("A", "big"), ("O", "big"))
    assert catalog.resolve("whatever").candidates == (("O", "whatever"),)
    with pytest.raises(GatewayError):
        catalog.card("whatever")


def test_lists_change_and_failures_keep_the_old_one() -> None:
    catalog = Catalog([OPEN], None, 7)
    assert (catalog.default, catalog.cards(), catalog.is_fallback) == (None, (), False)
    catalog.learn("o", dict.fromkeys(("one", "two")))
    assert catalog.default == "one"
    catalog.learn("o", None)
    assert [c.id for c in catalog.cards()] == ["one", "two"]
    catalog.learn("o", dict.fromkeys(("two",)))
    assert catalog.default == "two"


def test_without_any_list_the_built_in_one_is_shown() -> None:
    catalog = Catalog([OPEN, Source("P", "p", None, {})], None, 7)
    catalog.learn("o", None)
    assert not catalog.is_fallback  # the other one has not been asked yet
    catalog.learn("p", None)
    assert catalog.is_fallback
    assert not catalog.has_known_default
    assert tuple(c.id for c in catalog.cards()) == FALLBACK_MODELS
    assert catalog.default == FALLBACK_DEFAULT == "gpt-3.5-turbo"
    assert catalog.resolve(FALLBACK_DEFAULT).candidates == (("O", FALLBACK_DEFAULT), ("P", FALLBACK_DEFAULT))
    catalog.learn("p", dict.fromkeys(("real",)))
    assert not catalog.is_fallback
    assert [c.id for c in catalog.cards()] == ["real"]
    assert (catalog.default, catalog.has_known_default) == ("real", True)


def test_a_configured_list_never_falls_back() -> None:
    catalog = Catalog([A, OPEN], None, 7)
    catalog.learn("o", None)
    assert not catalog.is_fallback
    assert (catalog.default, catalog.has_known_default) == ("big", True)


def test_a_configured_default() -> None:
    catalog = Catalog([A], "fast", 7)
    assert (catalog.default, catalog.has_known_default) == ("fast", True)
    # One upstream, one named model, no list: that model is there.
    single = Catalog([OPEN], "mine", 7)
    single.learn("o", None)
    assert not single.is_fallback
    assert [c.id for c in single.cards()] == ["mine"]
    assert single.resolve("other").candidates == (("O", "other"),)


def test_an_empty_configured_list_serves_aliases_alone() -> None:
    catalog = Catalog([Source("A", "a", (), {"x": "y"})], None, 7)
    assert catalog.resolve("x").candidates == (("A", "y"),)
    assert refusal(catalog, "y").status == 404


def test_a_card_tells_when_the_upstream_says_that_its_model_was_made() -> None:
    catalog = Catalog([A, Source("O", "o", None, {"mine": "old"})], None, 1000)
    catalog.learn("o", {"old": 7, "now": 5000, "silent": None})
    # One that is younger than the gateway was made up when it was asked, and would differ each time.
    assert {c.id: c.created for c in catalog.cards()} == {
        "big": 1000,
        "org/small": 1000,
        "fast": 1000,
        "old": 7,
        "now": 1000,
        "silent": 1000,
        "mine": 7,
    }
    catalog.learn("o", {"old": 7, "now": 6000})
    assert catalog.card("now").created == 1000
