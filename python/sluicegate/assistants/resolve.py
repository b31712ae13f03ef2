"""Model name → the assistant of that name, or the route of a plain model; exact and case-sensitive."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from sluicegate import errors
from sluicegate.assistants.model import Assistant
from sluicegate.globs import Globs


class PlainRoute(Protocol):
    """Who serves a plain model. `listed`: somebody is known to, it is not only passed on."""

    @property
    def listed(self) -> bool: ...


class Named(Protocol):
    """An entry of the list of models."""

    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=PlainRoute)
R_co = TypeVar("R_co", bound=PlainRoute, covariant=True)


class PlainModels(Protocol[R_co]):
    """The models of a workspace's upstreams; `models.catalog.Catalog` is one."""

    def find(self, model: str, rules: Sequence[Globs] = ()) -> R_co | None: ...
    def cards(self, rules: Sequence[Globs] = ()) -> Iterable[Named]: ...


class Allowed(NamedTuple):
    """What may be called: plain models at all, which of them in this workspace, and what by this key."""

    plain: bool = True
    models: Globs | None = None
    key: Globs | None = None

    def rules(self) -> tuple[Globs, ...]:
        """Every rule that a plain model has to meet."""
        return tuple(rule for rule in (self.models, self.key) if rule is not None)


class Resolved(NamedTuple, Generic[R]):
    """Exactly one of the two is set."""

    assistant: Assistant | None
    route: R | None


def resolve(
    model: str, assistants: Mapping[str, Assistant], plain: PlainModels[R], allowed: Allowed
) -> Resolved[R]:
    """What the name stands for in one workspace; assistants go before models of the same name.

    Raises 404 for what this workspace does not have, or does not allow: the two look alike. Raises 403 for
    what it has, and this key may not use. Only names that the key may use are ever told.
    """
    assistant = assistants.get(model)
    if assistant is not None:
        if allowed.key is not None and not allowed.key.match(model):
            raise errors.model_not_allowed(model)
        return Resolved(assistant, None)
    route = _find(model, plain, allowed) if allowed.plain else None
    if route is None:
        raise errors.unknown_model(model, visible_names(assistants, plain, allowed))
    if not route.listed:
        # Nobody is known to serve it. Before a guess costs a call: is it an assistant in another case?
        wanted = model.casefold()
        if any(name.casefold() == wanted for name in assistants if _may(name, allowed)):
            raise errors.unknown_model(model, visible_names(assistants, plain, allowed))
    return Resolved(None, route)


def visible_names(
    assistants: Mapping[str, Assistant], plain: PlainModels[R], allowed: Allowed
) -> Iterator[str]:
    """All names that a key may use, assistants first."""
    yield from (name for name in assistants if _may(name, allowed))
    if allowed.plain:
        yield from (card.id for card in plain.cards(allowed.rules()))


def _find(model: str, plain: PlainModels[R], allowed: Allowed) -> R | None:
    rules = allowed.rules()
    route = plain.find(model, rules)
    if route is None and allowed.key is not None:
        own = () if allowed.models is None else (allowed.models,)
        if plain.find(model, own) is not None:
            raise errors.model_not_allowed(model)
    return route


def _may(name: str, allowed: Allowed) -> bool:
    return allowed.key is None or allowed.key.match(name)
