"""The context window: does the prompt fit, and how many tokens does it leave to the answer?"""

from typing import TYPE_CHECKING, NamedTuple, Protocol

from sluicegate import errors
from sluicegate.chat.prepare import Ask, Operation, stated_limit

if TYPE_CHECKING:
    from sluicegate.chat.directory import Plan
    from sluicegate.chat.meter import Meter
    from sluicegate.engine import Recipe
    from sluicegate.telemetry.logs import Log
    from sluicegate.upstreams.model import Candidate

# What a chat template adds at most: its own instructions for tools, a date, marks between messages. The marks
# are covered by the JSON around each message (at least 28 bytes), the rest by this.
TEMPLATE_TOKENS = 512
# English and code have 3.5 to 4.5 bytes a token with the vocabularies of today, Chinese about 3.
BYTES_A_TOKEN = 4
# A picture of 1024 x 1024 is 765 tokens for gpt-4o and 1,000 to 1,400 for the Qwen and Llama families.
MEDIA_TOKENS = 1024
# Kept free for an answer whose length nobody limits.
USUAL_ANSWER = 1024
_MOST_WARNINGS = 1024


class Prompt(NamedTuple):
    """What is counted: the body as it goes upstream, and the lengths that are known without reading it."""

    candidate: "Candidate"
    operation: Operation
    body: bytes
    text_bytes: int
    media: int


class TokenCount(NamedTuple):
    """The tokens of a prompt."""

    tokens: int
    # As the model's server counts them. Where not, they are `counted` by the tokenizer of the model and only
    # what is around the texts is estimated; or all is, from its length.
    exact: bool
    counted: bool = False


class ToBeCounted(NamedTuple):
    """Length alone does not tell; what is known so far, in tokens."""

    # What client, assistant and workspace say, the window that holds here, and the model's own length.
    stated: int | None
    window: int
    length: int | None


class TokenCounter(Protocol):
    """Counts the tokens of a prompt, without holding up anybody else."""

    def knows(self, candidate: "Candidate") -> bool:
        """The tokenizer of this model is known, so that `count` needs the body."""

    async def count(self, prompt: Prompt) -> TokenCount:
        """The tokens of the prompt, as the model will see it."""

    def meter(self, operation: Operation, candidate: "Candidate", body: bytes) -> "Meter | None":
        """For a call whose upstream may not tell what was used. None: its tokenizer is not known."""


def estimate(prompt: Prompt) -> TokenCount:
    """From the lengths alone: four bytes are a token. `body` may be empty."""
    return TokenCount(-(-prompt.text_bytes // BYTES_A_TOKEN) + MEDIA_TOKENS * prompt.media, exact=False)


class ContextWindows:
    """Checks each request against the window of the model that it goes to."""

    def __init__(self, counter: TokenCounter, log: "Log") -> None:
        self._counter = counter
        self._log = log
        self._warned: set[tuple[str, str, str]] = set()

    def meter(self, operation: Operation, candidate: "Candidate", body: bytes) -> "Meter | None":
        """Counts what this call uses, if its upstream does not tell; `body`: as it is sent."""
        return self._counter.meter(operation, candidate, body)

    def proven_limit(self, ask: Ask, candidate: "Candidate") -> "int | ToBeCounted | None":
        """Tokens that the answer may have, where that is known without counting: most requests end here.

        None: nobody limits it.
        """
        plan, rules, request = ask.plan, ask.rules, ask.request
        if not rules.limits_answer:
            return None
        limit = stated_limit(ask)
        upstream, model = candidate
        length = upstream.context_length(model)
        if length is None and plan.view.settings.context_window is None:
            return limit
        window = plan.view.window(upstream, model)
        if window is None:
            self._warn(plan, candidate)
            return limit
        # No token is shorter than a byte, so that the length alone proves that most requests fit.
        most = request.prompt_bytes + plan.prompt_bytes + TEMPLATE_TOKENS
        proven = most + (limit or 1) <= window and request.media_count == 0
        # A window of this workspace's own is not the upstream's to enforce: it goes along as a limit.
        own = limit is None and window != length
        if (proven and not own) or request.input_count > 1:
            return limit
        return ToBeCounted(limit, window, length)

    async def counted_limit(
        self, ask: Ask, candidate: "Candidate", recipe: "Recipe", asked: "ToBeCounted"
    ) -> int | None:
        """Tokens that the answer may have: min(client, assistant, workspace, window - prompt).

        Raises 400 `context_length_exceeded` where the prompt leaves no room.
        """
        limit, window, length = asked
        count = await self.count(ask, candidate, recipe)
        room = window - count.tokens
        if room < 1:
            raise _too_long(ask, window, count, length)
        if limit is None:
            return None if window == length else room
        return min(limit, room)

    async def leaves_room(self, ask: Ask, candidate: "Candidate", recipe: "Recipe") -> bool:
        """Whether the prompt leaves what the answer is meant to have, at most a quarter of the window."""
        plan, request = ask.plan, ask.request
        window = plan.view.window(*candidate)
        if window is None:
            return True
        reserved = min(stated_limit(ask) or USUAL_ANSWER, max(window // 4, 1))
        most = request.prompt_bytes + plan.prompt_bytes + TEMPLATE_TOKENS
        if most + reserved <= window and request.media_count == 0:
            return True
        return window - (await self.count(ask, candidate, recipe)).tokens >= reserved

    async def count(self, ask: Ask, candidate: "Candidate", recipe: "Recipe") -> TokenCount:
        """The tokens of the prompt as this model gets it."""
        plan, rules, request = ask.plan, ask.rules, ask.request
        known = self._counter.knows(candidate)
        body = request.compose(recipe, candidate[1], False, None)[0] if known else b""
        text = request.prompt_bytes + plan.prompt_bytes
        return await self._counter.count(Prompt(candidate, rules.operation, body, text, request.media_count))

    def _warn(self, plan: "Plan", candidate: "Candidate") -> None:
        """Say once that a percentage has nothing to be a percentage of."""
        upstream, model = candidate[0].name, candidate[1]
        key = (plan.view.id, upstream, model)
        if plan.view.settings.context_window is None or key in self._warned:
            return
        if len(self._warned) < _MOST_WARNINGS:
            self._warned.add(key)
            self._log.warning(
                "context_window_unknown",
                workspace=plan.view.id,
                upstream=upstream,
                model=model,
                message="the workspace limits the context window to a share of the model's, and the model's "
                "is not known: set it in context_lengths of the upstream",
            )


def _too_long(ask: Ask, window: int, count: TokenCount, own: int | None) -> errors.GatewayError:
    plan, rules = ask.plan, ask.rules
    chat = rules.operation == "chat"
    what = "messages" if chat else "prompt"
    about = "" if count.exact else "about "
    rule = plan.view.settings.context_window
    # Whose window it is decides whom to ask for a larger one.
    whose = "" if rule is None or window == own else f", as this workspace sets it ({rule})"
    shorten = "Shorten the messages or leave out the oldest" if chat else "Shorten the prompt"
    message = (
        f"This model's maximum context length is {window} tokens{whose}, but your {what} have {about}"
        f"{count.tokens} tokens{_how(count, chat=chat)}, which leaves none for the answer. {shorten}, or use "
        "a model with a larger window."
    )
    return errors.bad_request("context_length_exceeded", message.replace("prompt have", "prompt has"), what)


def _how(count: TokenCount, *, chat: bool) -> str:
    """How far to trust the number."""
    if count.exact:
        return ""
    its = "their" if chat else "its"
    if count.counted:
        return f" ({its} text is counted, what is around it estimated)"
    return f" (estimated from {its} length)"
