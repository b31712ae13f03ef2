"""Public model name → the upstreams that serve it, and the names that they have for it."""

from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from msgspec import Struct

from sluicegate import errors
from sluicegate.fallback import FALLBACK_DEFAULT, FALLBACK_MODELS

U = TypeVar("U")


class Source(NamedTuple, Generic[U]):
    """One upstream as the catalog sees it: `models` None means that its list is discovered."""

    upstream: U
    name: str
    models: tuple[str, ...] | None
    aliases: Mapping[str, str]


class Route(NamedTuple, Generic[U]):
    """A resolved model: the name that the client sees, and (upstream, upstream's name) pairs."""

    model: str
    candidates: tuple[tuple[U, str], ...]


class Card(Struct, frozen=True):
    """One entry of /v1/models."""

    id: str
    created: int
    owned_by: str
    object: str = "model"


class Catalog(Generic[U]):
    """All models of one worker. Lists that arrive later replace the tables as a whole."""

    def __init__(self, sources: Sequence[Source[U]], default_model: str | None, created: int) -> None:
        """`created`: the time of cards whose upstream gives none, so that it stays between two requests."""
        self._sources = tuple(sources)
        self._configured_default = default_model
        self._created = created
        self._discovered: dict[str, Mapping[str, int | None] | None] = {}
        self._routes: dict[str, Route[U]] = {}
        self._cards: dict[str, Card] = {}
        self._open: tuple[U, ...] = tuple(s.upstream for s in self._sources if s.models is None)
        self._default: str | None = None
        self.is_fallback = False
        self._rebuild()

    def learn(self, name: str, models: Mapping[str, int | None] | None) -> None:
        """What the upstream `name` listed, with times; None: no list, and an older one stays in force."""
        if models is not None or name not in self._discovered:
            self._discovered[name] = models
            self._rebuild()

    def resolve(self, model: str) -> Route[U]:
        """The route of a name, exactly as written. Unknown names go to the upstreams with open lists."""
        route = self._routes.get(model)
        if route is not None:
            return route
        if self._open:
            # Their 404 is authoritative: a list can be old, or leave out what the server loads on demand.
            return Route(model, tuple((upstream, model) for upstream in self._open))
        raise self._not_found(model)

    @property
    def default(self) -> str | None:
        """The model of a request that names none."""
        return self._default

    @property
    def has_known_default(self) -> bool:
        """The default is configured or discovered, not a guess."""
        return self._default is not None and not self.is_fallback

    def cards(self) -> tuple[Card, ...]:
        """What /v1/models lists, in the order of the settings."""
        return tuple(self._cards.values())

    def card(self, model: str) -> Card:
        """One entry; names that are only passed on have none."""
        card = self._cards.get(model)
        if card is None:
            raise self._not_found(model)
        return card

    def _rebuild(self) -> None:
        candidates: dict[str, list[tuple[U, str]]] = {}
        cards: dict[str, Card] = {}
        for source in self._sources:
            listed = self._models_of(source)
            names = {name: name for name in listed} | dict(source.aliases)
            for public, upstream_model in names.items():
                candidates.setdefault(public, []).append((source.upstream, upstream_model))
                cards.setdefault(public, Card(public, self._made(source, upstream_model), source.name))
        self.is_fallback = not cards and bool(self._open) and self._all_asked()
        default = self._configured_default or next(iter(cards), None)
        if self.is_fallback:
            cards = {name: Card(name, self._created, "upstream") for name in FALLBACK_MODELS}
            default = FALLBACK_DEFAULT
        self._routes = {name: Route(name, tuple(found)) for name, found in candidates.items()}
        self._cards = cards
        self._default = default

    def _made(self, source: Source[U], model: str) -> int:
        """When the upstream says the model was made.

        Some say «now» each time. That must not change between two requests or two workers, so nothing is
        younger than the gateway.
        """
        made = (self._discovered.get(source.name) or {}).get(model)
        return self._created if made is None else min(made, self._created)

    def _models_of(self, source: Source[U]) -> tuple[str, ...]:
        if source.models is not None:
            return source.models
        found = self._discovered.get(source.name)
        if found is None and self._configured_default is not None and len(self._sources) == 1:
            # The only upstream, and the operator has named a model: that one is there.
            return (self._configured_default,)
        return tuple(found or ())

    def _all_asked(self) -> bool:
        return all(source.name in self._discovered for source in self._sources if source.models is None)

    def _not_found(self, model: str) -> errors.GatewayError:
        shown = errors.printable(model)
        wanted = model.casefold()
        same = [name for name in self._cards if name.casefold() == wanted]
        if same:
            return errors.model_not_found(
                f"The model `{shown}` does not exist, but `{same[0]}` does: names are case-sensitive."
            )
        return errors.model_not_found(
            f"The model `{shown}` does not exist or is not served here. GET /v1/models lists what there is."
        )
