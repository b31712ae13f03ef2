"""The body that goes to an upstream, and what has to be undone in its answer."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import orjson
from msgspec import Struct

from sluicegate import errors
from sluicegate.assistants.model import Assistant, AssistantSpec
from sluicegate.chat.thinking import output_option
from sluicegate.keys.model import Scope

if TYPE_CHECKING:
    from sluicegate.chat.directory import Plan
    from sluicegate.engine import Recipe, Request
    from sluicegate.upstreams.model import Candidate, Upstream
    from sluicegate.upstreams.thinking import Switch

Operation = Literal["chat", "completions", "embeddings"]
MakeRecipe = Callable[..., "Recipe"]

# Every name by which a client limits its answer; one goes upstream.
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
# Clients make up budgets of thinking: not each of them is remembered for ever.
_MOST_RECIPES = 256


class Rules(Struct, frozen=True):
    """What an operation takes of an assistant, and the scope that a key needs for it."""

    operation: Operation
    scope: Scope
    # None: every field.
    fields: frozenset[str] | None = None
    # It has messages, so that a system prompt can stand before them.
    messages: bool = True
    streams: bool = True
    limits_answer: bool = True
    # Conversations of an assistant are continued.
    remembers: bool = False


CHAT = Rules("chat", "chat:write", remembers=True)


class Ask(Struct, frozen=True):
    """One request, and what is planned for it."""

    plan: "Plan"
    rules: Rules
    request: "Request"


class Prepared(Struct, frozen=True):
    """One call to one upstream."""

    body: bytes
    # Replaces `model` in the answer; None: the upstream's own name is what the client asked for.
    public_model: str | None
    # The client did not ask for usage: it is counted and dropped.
    hide_usage: bool
    # `stream_options` was added to the body, which some servers refuse.
    injected: bool
    # What the client gave and the upstream does not get.
    dropped: tuple[str, ...] = ()
    # What the body says of thinking, where that was ours to say.
    switch: "Switch | None" = None
    # What the core does with the thinking of the answer.
    thinking: tuple[str, bool] | None = None


def check(ask: Ask, assistant: Assistant) -> None:
    """Refuse what the assistant and the operation cannot have together."""
    plan, rules, request = ask.plan, ask.rules, ask.request
    spec = assistant.spec
    if rules.operation == "completions" and plan.quality is not None and plan.quality.blocks_unscored:
        raise errors.bad_request(
            "invalid_value",
            f"The assistant `{errors.printable(assistant.name)}` gives no answer without a score, and "
            "/v1/completions has none. Use /v1/chat/completions.",
            "model",
        )
    if "system_prompt" not in spec.locked:
        return
    name = errors.printable(assistant.name)
    if rules.operation == "completions" and spec.system_prompt:
        raise errors.bad_request(
            "invalid_value",
            f"The assistant `{name}` has a system prompt, which /v1/completions has no place for. "
            "Use /v1/chat/completions.",
            "model",
        )
    if rules.messages and not spec.system_prompt and request.system_count == request.message_count:
        raise errors.bad_request(
            "invalid_value",
            f"'messages' has only system messages, and the assistant `{name}` takes none. "
            "Send a message of the role user.",
            "messages",
        )


def prepare(  # noqa: PLR0913 (all that is known of one call)
    ask: Ask,
    candidate: "Candidate",
    recipe: "Recipe",
    limit: int | None,
    *,
    usage: bool,
    switch: "Switch | None" = None,
) -> Prepared:
    """Change as little as possible; where nothing has to change, the client's bytes go on as they are.

    `limit`: tokens of the answer; None leaves the client's own. `usage`: ask for the usage of a stream.
    """
    plan, request = ask.plan, ask.request
    model = candidate[1]
    hide = request.stream and not request.include_usage
    inject = hide and usage
    # A request that names no model gets one, and is answered with that name.
    rename = model if request.model != model else None
    body, dropped = request.compose(recipe, rename, inject, limit)
    public = plan.name if plan.name != model else None
    rule = plan.thinking
    as_it_comes = rule is None or (switch is None and rule.output == "pass")
    output = None if as_it_comes else output_option(ask, candidate, switch)
    return Prepared(body, public, hide, inject, tuple(dropped), switch, output)


def recipe(ask: Ask, upstream: "Upstream", make: MakeRecipe, switch: "Switch | None" = None) -> "Recipe":
    """What is done to every request of this plan at this upstream; made once."""
    plan, rules = ask.plan, ask.rules
    key = (rules.operation, upstream.name, switch)
    found = plan.recipes.get(key)
    if found is None:
        if len(plan.recipes) >= _MOST_RECIPES:
            plan.recipes.clear()
        spec = None if plan.assistant is None else plan.assistant.spec
        found = plan.recipes[key] = make(**_ingredients(rules, upstream, spec, switch))
    return found


def stated_limit(ask: Ask) -> int | None:
    """The most tokens that the answer may have, the context window apart; None: nobody says.

    The least of what client, assistant and workspace say. Where the assistant locks it, the client has none.
    """
    most = ask.plan.most_tokens
    client = ask.request.max_tokens if ask.plan.client_limits else None
    if most is None or client is None:
        return client if most is None else most
    return min(client, most)


def _ingredients(
    rules: Rules, upstream: "Upstream", spec: AssistantSpec | None, switch: "Switch | None"
) -> dict[str, Any]:
    found: dict[str, Any] = {"denied": list(upstream.denied_params)}
    if rules.limits_answer:
        # The newer name belongs to chats only.
        newer = rules.operation == "chat"
        found["max_tokens_field"] = upstream.profile.max_tokens_field if newer else "max_tokens"
    if spec is None:
        return found
    takes = [name for name in spec.defaults if rules.fields is None or name in rules.fields]
    # Locked without a value: the client may not set it, and nobody else does.
    bare = spec.locked - spec.defaults.keys() - {"model", "system_prompt"}
    if switch is not None:
        found["thinking"] = (switch.settings(), switch.overrules)
        takes = [name for name in takes if name != "reasoning_effort"]
        bare -= {"reasoning_effort", "thinking"}
    found["fields"] = [
        (name, orjson.dumps(spec.defaults[name]), name in spec.locked)
        for name in takes
        if name != "max_tokens"
    ]
    found["denied"] += sorted(_LIMITS if "max_tokens" in bare else ()) + sorted(bare - {"max_tokens"})
    if rules.messages:
        found["system_prompt"] = spec.system_prompt or None
        found["system_role"] = upstream.profile.system_role
        found["replace_system"] = "system_prompt" in spec.locked
    return found
