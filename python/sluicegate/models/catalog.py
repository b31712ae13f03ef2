"""Public model name → the upstreams that serve it, and the names that they have for it."""

from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from msgspec import Struct

from sluicegate import errors
from sluicegate.fallback import FALLBACK_DEFAULT, FALLBACK_MODELS
from sluicegate.globs import Globs

U = TypeVar("U")


class Source(NamedTuple, Generic[U]):
    """One upstream as the catalog sees it: `models` None means that its list is discovered."""

    upstream: U
    name: str
    models: tuple[str, ...] | None
    aliases: Mapping[str, str]
    priority: int = 0


class Route(NamedTuple, Generic[U]):
    """A resolved model: the name that the client sees, and (upstream, upstream's name) pairs, in steps.

    A step is asked only where nobody of those before it is left. `listed`: somebody is known to serve it.
    """

    model: str
    steps: tuple[tuple[tuple[U, str], ...], ...]
    listed: bool = True

    @property
    def candidates(self) -> tuple[tuple[U, str], ...]:
        """All of them, in order."""
        return tuple(candidate for step in self.steps for candidate in step)


class _Place(NamedTuple, Generic[U]):
    """One upstream that serves a name."""

    source: Source[U]
    model: str

    def allowed(self, public: str, rules: Sequence[Globs]) -> bool:
        """Whether every rule matches the name that was asked for, or «upstream/model»."""
        return all(rule.match(public, f"{self.source.name}/{self.model}") for rule in rules)


class Card(Struct, frozen=True):
    """One entry of /v1/models."""

    id: str
    created: int
    owned_by: str
    object: str = "model"


class Catalog(Generic[U]):
    """All models of one worker. Lists that arrive later replace the tables as a whole."""

    def __init__(
        self,
        sources: Sequence[Source[U]],
        default_model: str | None,
        created: int,
        default_upstream: str | None = None,
    ) -> None:
        """`created`: the time of cards whose upstream gives none, so that it stays between two requests.

        `default_upstream` is asked first for every name that does not say which upstream is meant.
        """
        self._default_upstream = default_upstream
        self._sources = tuple(sources)
        self._configured_default = default_model
        self._created = created
        self._discovered: dict[str, Mapping[str, int | None] | None] = {}
        self._routes: dict[str, Route[U]] = {}
        self._places: dict[str, tuple[_Place[U], ...]] = {}
        self._cards: dict[str, Card] = {}
        self._open = tuple(s for s in self._sources if s.models is None)
        self._default: str | None = None
        self.is_fallback = False
        # Grows with each change of the tables.
        self.version = 0
        self._rebuild()

    def learn(self, name: str, models: Mapping[str, int | None] | None) -> None:
        """What the upstream `name` listed, with times; None: no list, and an older one stays in force."""
        if models is not None or name not in self._discovered:
            self._discovered[name] = models
            self._rebuild()

    def find(self, model: str, rules: Sequence[Globs] = ()) -> Route[U] | None:
        """The route of a name, exactly as written, to those that every rule allows; None: to nobody.

        A name of a list goes before «upstream/model». Other names go to the upstreams with open lists: their
        404 is authoritative, as a list can be old, or leave out what the server loads on demand.
        """
        if not rules:
            route = self._routes.get(model)
            if route is not None:
                return route
        places, listed = self._places.get(model), True
        if places is None:
            places, listed = self._qualified(model)
        places = tuple(place for place in places if place.allowed(model, rules))
        return self._route(model, places, listed=listed) if places else None

    def resolve(self, model: str) -> Route[U]:
        """As `find`, without rules; raises 404 where nobody serves the name."""
        route = self.find(model)
        if route is None:
            raise errors.unknown_model(model, self._cards)
        return route

    @property
    def default(self) -> str | None:
        """The model of a request that names none."""
        return self._default

    @property
    def configured_default(self) -> str | None:
        """The default as it was given, whoever serves it."""
        return self._configured_default

    @property
    def has_known_default(self) -> bool:
        """The default is configured or discovered, not a guess."""
        return self._default is not None and not self.is_fallback

    def cards(self, rules: Sequence[Globs] = ()) -> tuple[Card, ...]:
        """What /v1/models lists, in the order of the settings."""
        if not rules:
            return tuple(self._cards.values())
        return tuple(card for name, card in self._cards.items() if self._is_listed(name, rules))

    def _is_listed(self, model: str, rules: Sequence[Globs]) -> bool:
        places = self._places.get(model)
        if places is None:  # of the built-in list, which stands for the open upstreams
            places = tuple(_Place(source, model) for source in self._open)
        return any(place.allowed(model, rules) for place in places)

    def _rebuild(self) -> None:
        places: dict[str, list[_Place[U]]] = {}
        cards: dict[str, Card] = {}
        for source in self._sources:
            for public, upstream_model in self._names_of(source).items():
                places.setdefault(public, []).append(_Place(source, upstream_model))
                cards.setdefault(public, Card(public, self._made(source, upstream_model), source.name))
        self.is_fallback = not cards and bool(self._open) and self._all_asked()
        default = self._configured_default or next(iter(cards), None)
        if self.is_fallback:
            cards = {name: Card(name, self._created, "upstream") for name in FALLBACK_MODELS}
            default = FALLBACK_DEFAULT
        self._places = {name: tuple(found) for name, found in places.items()}
        self._routes = {name: self._route(name, found) for name, found in self._places.items()}
        self._cards = cards
        self._default = default
        self.version += 1

    def _qualified(self, model: str) -> tuple[tuple[_Place[U], ...], bool]:
        """Who serves a name that is in no list: the upstream that it names, else those with open lists."""
        prefix, slash, rest = model.partition("/")
        for source in self._sources if slash and rest else ():
            if source.name == prefix:
                own = self._names_of(source).get(rest)
                if own is not None:
                    return (_Place(source, own),), True
                if source.models is None:
                    return (_Place(source, rest),), False
        return tuple(_Place(source, model) for source in self._open), False

    def _route(self, model: str, places: tuple[_Place[U], ...], *, listed: bool = True) -> Route[U]:
        steps: dict[int, list[tuple[U, str]]] = {}
        for place in places:
            # The default upstream goes before all priorities.
            first = place.source.name == self._default_upstream
            steps.setdefault(-1 if first else place.source.priority, []).append(
                (place.source.upstream, place.model)
            )
        return Route(model, tuple(tuple(steps[priority]) for priority in sorted(steps)), listed)

    def _names_of(self, source: Source[U]) -> dict[str, str]:
        """Public name → the upstream's own; an alias goes before a model of the same name."""
        return {name: name for name in self._models_of(source)} | dict(source.aliases)

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
