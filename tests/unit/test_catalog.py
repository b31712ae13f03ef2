"""The catalog: exact names, open and closed lists, the default, and the built-in list."""

from __future__ import annotations

import pytest

from sluicegate.errors import GatewayError
from sluicegate.fallback import FALLBACK_DEFAULT, FALLBACK_MODELS
from sluicegate.globs import Globs
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
    assert catalog.resolve("fast") == ("fast", ((("A", "org/small"),),), True)
    # An alias goes before the upstream's own name.
    assert catalog.resolve("big").candidates == (("A", "big"), ("B", "b-big-2"))
    assert [c.id for c in catalog.cards()] == ["big", "org/small", "fast", "only-b"]
    assert [c.owned_by for c in catalog.cards()] == ["a", "a", "a", "b"]
    assert {c.created for c in catalog.cards()} == {7}


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
    assert "whatever" not in [c.id for c in catalog.cards()]


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


def test_a_name_may_say_which_upstream_is_meant() -> None:
    catalog = Catalog([A, B, OPEN], None, 7)
    assert catalog.resolve("b/big").candidates == (("B", "b-big-2"),)
    assert catalog.resolve("a/org/small").candidates == (("A", "org/small"),)
    assert catalog.resolve("o/anything").candidates == (("O", "anything"),)
    assert not catalog.resolve("o/anything").listed
    # A closed list stays closed; what it lacks is an unknown name like any other.
    assert catalog.resolve("a/none").candidates == (("O", "a/none"),)
    with pytest.raises(GatewayError):
        Catalog([A, B], None, 7).resolve("a/none")
    # A model of that very name goes first.
    named = Source("N", "n", ("b/big",), {})
    assert Catalog([B, named], None, 7).resolve("b/big").candidates == (("N", "b/big"),)


def test_priorities_are_steps_and_the_default_upstream_goes_before_them() -> None:
    late = Source("L", "l", ("big",), {}, 5)
    assert Catalog([late, A, B], None, 7).resolve("big").steps == (
        (("A", "big"), ("B", "b-big-2")),
        (("L", "big"),),
    )
    found = Catalog([late, A, B], None, 7, "l").resolve("big").steps
    assert found == ((("L", "big"),), (("A", "big"), ("B", "b-big-2")))


def test_rules_look_at_the_name_and_at_who_serves_it() -> None:
    catalog = Catalog([A, B], None, 7)

    def found(model: str, *patterns: str) -> list[str] | None:
        route = catalog.find(model, [Globs((pattern,)) for pattern in patterns])
        return None if route is None else [upstream for upstream, _ in route.candidates]

    assert found("big", "a/*") == ["A"]
    assert found("big", "b/b-big-2") == ["B"]
    assert found("big", "big") == ["A", "B"]
    assert found("big", "*", "b/*") == ["B"]
    assert found("big", "a/*", "b/*") is None
    assert found("fast", "a/org/*") == ["A"]
    assert [card.id for card in catalog.cards([Globs(("a/org/*",))])] == ["org/small", "fast"]


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
    assert {c.created for c in catalog.cards() if c.id == "now"} == {1000}
