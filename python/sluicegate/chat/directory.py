"""What a workspace's requests may reach: assistants, plain models, upstreams, limits; read from memory."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import orjson
from msgspec import Struct

from sluicegate import errors
from sluicegate.assistants.model import Assistant, AssistantSpec
from sluicegate.assistants.resolve import Allowed, resolve, visible_names
from sluicegate.chat.quality import QualityRule, quality_of
from sluicegate.chat.thinking import ThinkingRule, rule_of
from sluicegate.engine import Recipe
from sluicegate.globs import globs_of
from sluicegate.keys.model import Principal
from sluicegate.limits.admit import Scope, scope
from sluicegate.models.catalog import Card, Catalog
from sluicegate.upstreams.discover import Discovery
from sluicegate.upstreams.model import Steps, Upstream
from sluicegate.upstreams.thinking import Switch
from sluicegate.workspaces.model import WorkspaceSettings

_MOST_GUESSES = 256


class Plan(Struct, frozen=True):
    """Whom to ask for one public name, in which order, and as which assistant."""

    name: str
    steps: Steps
    view: "View"
    assistant: Assistant | None = None
    # The most tokens of an answer that assistant and workspace allow, and whether a client may ask for fewer.
    most_tokens: int | None = None
    client_limits: bool = True
    # Of what the assistant adds to the prompt, in UTF-8.
    prompt_bytes: int = 0
    # Of an assistant: conversations are kept.
    keeps_history: bool = False
    # (operation, upstream, what is said of thinking) → what is done to such a request; filled when one comes.
    recipes: dict[tuple[str, str, Switch | None], Recipe] = {}
    # Of an assistant.
    thinking: ThinkingRule | None = None
    quality: QualityRule | None = None


class View:
    """A workspace at one moment. It never changes; the plans that are made of it are kept, and go with it."""

    __slots__ = (
        "_allowed",
        "_guesses",
        "_plans",
        "_window",
        "assistant_scopes",
        "assistants",
        "catalog",
        "id",
        "scope",
        "settings",
        "upstreams",
    )

    def __init__(
        self,
        id: str,
        settings: WorkspaceSettings,
        assistants: Iterable[Assistant],
        upstreams: Mapping[str, Upstream],
        catalog: Catalog[Upstream],
    ) -> None:
        """`upstreams`: by name, those that this workspace may use; `catalog`: their models."""
        self.id = id
        self.settings = settings
        self.assistants: Mapping[str, Assistant] = {assistant.name: assistant for assistant in assistants}
        self.upstreams = upstreams
        self.catalog = catalog
        self._allowed = Allowed(settings.plain_models, globs_of(settings.allowed_models))
        self._window = settings.window
        self.scope = scope("workspace", id, id, settings.limits, settings.budget)
        self.assistant_scopes: Mapping[str, Scope] = {
            assistant.name: made
            for assistant in self.assistants.values()
            if (made := scope("assistant", assistant.id, assistant.name, assistant.spec.limits)) is not None
        }
        # By name, with the version of the catalog that it was made from; only what holds for every key that
        # has no rules of its own. Names that nobody lists are kept apart, and few: clients make them up.
        self._plans: dict[str, tuple[int, Plan]] = {}
        self._guesses: dict[str, tuple[int, Plan]] = {}

    def plan(self, model: str, principal: Principal) -> Plan:
        """The plan for a name, as this caller may use it. Raises 404, 403, or 503 where nobody is there."""
        restricted = principal.models is not None
        version = self.catalog.version
        if not restricted:
            kept = self._plans.get(model) or self._guesses.get(model)
            if kept is not None and kept[0] == version:
                return kept[1]
        found = resolve(model, self.assistants, self.catalog, self._allowed_to(principal))
        if found.assistant is not None:
            plan = self._assistant_plan(found.assistant)
        else:
            assert found.route is not None  # noqa: S101 (one of the two is set)
            plan = Plan(model, found.route.steps, self, most_tokens=self.settings.max_tokens)
        if not restricted:
            self._keep(model, (version, plan), listed=found.route is None or found.route.listed)
        return plan

    def _keep(self, model: str, entry: tuple[int, Plan], *, listed: bool) -> None:
        if listed:
            self._plans[model] = entry
            return
        if len(self._guesses) >= _MOST_GUESSES:
            self._guesses.clear()
        self._guesses[model] = entry

    def without_thread(self, model: str) -> str:
        """The assistant that `assistant@thread` means; any other name as it is."""
        if model in self.assistants:
            return model
        at = model.rfind("@", 0, len(model) - 1)
        while at > 0:
            assistant = self.assistants.get(model[:at])
            if assistant is not None and assistant.spec.keeps_history:
                return assistant.name
            at = model.rfind("@", 0, at)
        return model

    def names(self, principal: Principal) -> Iterator[str]:
        """Every name that this caller may use, assistants first."""
        return visible_names(self.assistants, self.catalog, self._allowed_to(principal))

    def cards(self, principal: Principal) -> Iterator[Card]:
        """The entries of /v1/models for this caller."""
        allowed = self._allowed_to(principal)
        for name, assistant in self.assistants.items():
            if allowed.key is None or allowed.key.match(name):
                yield Card(name, assistant.created_at // 1000, self.id)
        if allowed.plain:
            yield from (c for c in self.catalog.cards(allowed.rules()) if c.id not in self.assistants)

    @property
    def window_is_share(self) -> bool:
        """The context window is a percentage, so that the models' own lengths have to be known."""
        return self._window is not None and self._window.percent is not None

    def context_length(self, name: str, principal: Principal) -> int | None:
        """Tokens that prompt and answer may have together, for the model that is asked first."""
        steps = self.plan(name, principal).steps
        lengths = [self.window(upstream, model) for upstream, model in steps[0]]
        known = [length for length in lengths if length is not None]
        return min(known) if known else None

    def window(self, upstream: Upstream, model: str) -> int | None:
        """As `context_length`, for one model of one upstream."""
        own = upstream.context_length(model)
        return own if self._window is None else self._window.resolve(own)

    def _allowed_to(self, principal: Principal) -> Allowed:
        if principal.models is None:
            return self._allowed
        return self._allowed._replace(key=globs_of(principal.models))

    def _assistant_plan(self, assistant: Assistant) -> Plan:
        steps = []
        for ref in assistant.spec.model:
            name, _, model = ref.partition("/")
            upstream = self.upstreams.get(name)
            if upstream is not None:
                steps.append(((upstream, upstream.config.aliases.get(model, model)),))
        if not steps:
            raise errors.assistant_unavailable(assistant.name)
        spec = assistant.spec
        limits = [limit for limit in (spec.max_tokens, self.settings.max_tokens) if limit is not None]
        return Plan(
            assistant.name,
            tuple(steps),
            self,
            assistant,
            min(limits, default=None),
            "max_tokens" not in spec.locked,
            _prompt_bytes(spec),
            keeps_history=spec.keeps_history,
            thinking=rule_of(spec),
            quality=quality_of(spec),
        )


def _prompt_bytes(spec: AssistantSpec) -> int:
    """The system prompt, and what becomes part of the prompt as well: tools, and the schema of the answer."""
    parts = [part for part in (spec.tools, spec.response_format) if part is not None]
    return len((spec.system_prompt or "").encode()) + sum(len(orjson.dumps(part)) for part in parts)


class Directory(Protocol):
    """Finds the workspace of a caller."""

    def view(self, principal: Principal) -> View | None:
        """From memory, at once; None: it has to be loaded."""

    async def load(self, principal: Principal) -> View:
        """From the store; the next `view` finds it."""

    async def default_model(self, view: View) -> str | None:
        """The model of a request that names none. May wait for the first lists of models."""


class SettingsDirectory:
    """The one workspace of a settings file or of the two environment variables."""

    def __init__(self, view: View, discovery: Discovery, default_model: str | None) -> None:
        self.kept = view
        self._discovery = discovery
        self._default_model = default_model

    def view(self, principal: Principal) -> View | None:
        """Always there."""
        del principal
        return self.kept

    async def load(self, principal: Principal) -> View:
        """There is nothing to load."""
        del principal
        return self.kept

    async def default_model(self, view: View) -> str | None:
        """As configured, else the first model that is listed."""
        if self._default_model is not None:
            return self._default_model
        if not view.catalog.has_known_default:
            await self._discovery.settle()
        return view.catalog.default
