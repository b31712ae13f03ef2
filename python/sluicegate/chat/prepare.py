"""The body that goes to an upstream, and what has to be undone in its answer."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import orjson
from msgspec import Struct

from sluicegate import errors
from sluicegate.assistants.model import Assistant, AssistantSpec
from sluicegate.keys.model import Scope

if TYPE_CHECKING:
    from sluicegate.chat.directory import Plan
    from sluicegate.engine import Recipe, Request
    from sluicegate.upstreams.model import Candidate, Upstream

Operation = Literal["chat", "completions", "embeddings"]
MakeRecipe = Callable[..., "Recipe"]

# Every name by which a client limits its answer; one goes upstream.
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


class Rules(NamedTuple):
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


class Ask(NamedTuple):
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


def check(ask: Ask, assistant: Assistant) -> None:
    """Refuse what the assistant and the operation cannot have together."""
    _, rules, request = ask
    spec = assistant.spec
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


def prepare(
    ask: Ask, candidate: "Candidate", recipe: "Recipe", limit: int | None, *, usage: bool
) -> Prepared:
    """Change as little as possible; where nothing has to change, the client's bytes go on as they are.

    `limit`: tokens of the answer; None leaves the client's own. `usage`: ask for the usage of a stream.
    """
    plan, _, request = ask
    model = candidate[1]
    hide = request.stream and not request.include_usage
    inject = hide and usage
    # A request that names no model gets one, and is answered with that name.
    rename = model if request.model != model else None
    body, dropped = request.compose(recipe, rename, inject, limit)
    public = plan.name if plan.name != model else None
    return Prepared(body, public, hide, inject, tuple(dropped))


def recipe(ask: Ask, upstream: "Upstream", make: MakeRecipe) -> "Recipe":
    """What is done to every request of this plan at this upstream; made once."""
    plan, rules, _ = ask
    key = (rules.operation, upstream.name)
    found = plan.recipes.get(key)
    if found is None:
        spec = None if plan.assistant is None else plan.assistant.spec
        found = plan.recipes[key] = make(**_ingredients(rules, upstream, spec))
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


def _ingredients(rules: Rules, upstream: "Upstream", spec: AssistantSpec | None) -> dict[str, Any]:
    found: dict[str, Any] = {"denied": list(upstream.denied_params)}
    if rules.limits_answer:
        # The newer name belongs to chats only.
        newer = rules.operation == "chat"
        found["max_tokens_field"] = upstream.profile.max_tokens_field if newer else "max_tokens"
    if spec is None:
        return found
    takes = [name for name in spec.defaults if rules.fields is None or name in rules.fields]
    found["fields"] = [
        (name, orjson.dumps(spec.defaults[name]), name in spec.locked)
        for name in takes
        if name != "max_tokens"
    ]
    # Locked without a value: the client may not set it, and nobody else does.
    bare = spec.locked - spec.defaults.keys() - {"model", "system_prompt"}
    found["denied"] += sorted(_LIMITS if "max_tokens" in bare else ()) + sorted(bare - {"max_tokens"})
    if rules.messages:
        found["system_prompt"] = spec.system_prompt or None
        found["system_role"] = upstream.profile.system_role
        found["replace_system"] = "system_prompt" in spec.locked
    return found
