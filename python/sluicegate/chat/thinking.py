"""How much a request makes the model think, and whether the model did as it was told."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from sluicegate.assistants.model import AssistantSpec, ReasoningOutput
from sluicegate.clock import wall_seconds
from sluicegate.errors import header_value
from sluicegate.upstreams.thinking import Asked, LearnedSwitch, Switch, Verdict, Way

if TYPE_CHECKING:
    from sluicegate.chat.prepare import Ask
    from sluicegate.engine import Failure, Outcome
    from sluicegate.errors import Header
    from sluicegate.telemetry.logs import Log
    from sluicegate.upstreams.model import Candidate, Upstream
    from sluicegate.usage.settle import Entry

# What thinking does to an answer that is wrong: in records, logs and headers.
NOT_OFF = "not_off"
ATE_ALL = "ate_all"
# Words of an error that speaks of the fields of a switch, with their servers' wordings.
_ABOUT = ("reasoning", "think", "effort", "chat_template_kwargs")

Save = Callable[["Upstream", LearnedSwitch], None]


class ThinkingRule(Struct, frozen=True):
    """What an assistant says of thinking."""

    # «inherit»: nothing.
    value: str
    # The client has no say.
    locked: bool
    output: ReasoningOutput


def rule_of(spec: AssistantSpec) -> ThinkingRule:
    """`thinking` and `reasoning_output`; where they say nothing, `chat_history` and `reasoning_effort`."""
    if spec.chat_history == "disable_think":
        return ThinkingRule("off", True, "hide")
    if spec.thinking != "inherit" or spec.reasoning_effort is None:
        # Locked without a value of its own: nobody sets it.
        locked = "thinking" in spec.locked or "reasoning_effort" in spec.locked
        return ThinkingRule(spec.thinking, locked, spec.reasoning_output)
    value = "off" if spec.reasoning_effort == "none" else spec.reasoning_effort
    return ThinkingRule(value, "reasoning_effort" in spec.locked, spec.reasoning_output)


def switch_of(ask: "Ask", candidate: "Candidate") -> Switch | None:
    """What is said of thinking to this upstream. None: nothing, and the client's fields go as they are."""
    rule = ask.plan.thinking
    if rule is None or ask.rules.operation != "chat":
        return None
    upstream, model = candidate
    wish = ask.request.thinking
    own = rule.locked or wish is None
    value = rule.value if wish is None or rule.locked else wish
    if value == "inherit":
        return Switch(value, "omit", overrules=True) if rule.locked and wish is not None else None
    if not own and upstream.guesses_thinking:
        # The client knows this server better than we do.
        return None
    asked: Asked = "off" if value == "off" else "on"
    way = upstream.switches.way(model, asked)
    return Switch(value, way, overrules=rule.locked and wish is not None and wish != value, own=own)


def output_option(ask: "Ask", candidate: "Candidate", switch: Switch | None) -> tuple[str, bool] | None:
    """What the core does with the thinking of the answer; None: nothing, at no cost."""
    rule = ask.plan.thinking
    if rule is None or ask.rules.operation != "chat":
        return None
    upstream, model = candidate
    if rule.output != "pass":
        return rule.output, upstream.switches.opens_thought(model)
    return ("watch", False) if switch is not None and switch.value == "off" else None


def refuses(failure: "Failure", switch: Switch | None) -> bool:
    """The server does not know the fields that an assistant's switch has added."""
    if switch is None or not switch.own or switch.way == "omit" or failure.status not in (400, 422):
        return False
    said = f"{failure.param} {failure.message}".lower()
    return any(word in said for word in _ABOUT)


def headers_of(entry: "Entry", upstream: "Upstream", model: str) -> "list[Header]":
    """`x-thinking`: what was asked and how, whether it works, and what went wrong."""
    switch: Switch | None = entry.switch
    parts = []
    if switch is not None and switch.value != "inherit":
        parts = [switch.value, f"way={switch.way}"]
        if switch.value == "off":
            verdict = upstream.switches.verdict(model, "off", switch.way)
            told = {"effective": "yes", "not_effective": "no"}.get(verdict or "", "unknown")
            parts.append(f"effective={told}")
    if entry.thinking == ATE_ALL:
        parts.append("spent=all")
    return [(b"x-thinking", header_value("; ".join(parts)))] if parts else []


class Verifier:
    """Looks at each answer for what was not to be there, remembers it, and says so once."""

    def __init__(self, log: "Log | None" = None, save: Save | None = None) -> None:
        """`save` keeps what is news for other workers."""
        self._log = log
        self._save = save

    def refused(self, candidate: "Candidate", switch: Switch) -> None:
        """The server refused a request for its switch."""
        self._note(candidate, switch.asked, switch.way, "refused")

    def look(self, entry: "Entry", candidate: "Candidate", outcome: "Outcome | None") -> None:
        """An answer has ended."""
        # Without a setting only an answer that says nothing is worth a look: did thinking eat it?
        if outcome is None or not (entry.looks or entry.switch is not None or not outcome.answer_bytes):
            return
        switch: Switch | None = entry.switch
        thought = outcome.thinking_bytes > 0 or bool(outcome.reasoning_tokens)
        if thought and not outcome.answer_bytes and outcome.finish == "length":
            entry.thinking = ATE_ALL
        upstream, model = candidate
        if outcome.thought_unmatched or outcome.thought_missed:
            upstream.switches.note_opens(model, outcome.thought_unmatched)
        if switch is None or switch.value != "off":
            return
        if thought or outcome.thought_unmatched:
            entry.thinking = entry.thinking or NOT_OFF
            self._note(candidate, "off", switch.way, "not_effective")
        elif outcome.state == "finished" and outcome.answer_bytes:
            self._note(candidate, "off", switch.way, "effective")

    def _note(self, candidate: "Candidate", asked: Asked, way: Way, verdict: Verdict) -> None:
        upstream, model = candidate
        if not upstream.switches.note(model, asked, way, verdict):
            return
        if self._log is not None and verdict != "effective":
            self._log.warning(
                f"thinking_switch_{verdict}",
                upstream=upstream.name,
                upstream_model=model,
                asked=asked,
                way=way,
                next=upstream.switches.way(model, asked),
            )
        if self._save is not None:
            at = wall_seconds() * 1000
            learned = LearnedSwitch(model=model, asked=asked, way=way, verdict=verdict, at=at)
            self._save(upstream, learned)
