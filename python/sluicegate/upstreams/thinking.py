"""How much a model thinks: one setting in the words of each kind of server, and what was seen to work."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import orjson
from msgspec import Struct

from sluicegate.settings import ThinkingWay

# effort: reasoning_effort ("none", "low" …); minimal: the same, for models that know no "none"; template:
# chat_template_kwargs.enable_thinking and .thinking; reasoning: reasoning.effort or .max_tokens; enabled:
# reasoning.enabled; type: thinking.type; flag: enable_thinking; omit: it is told nothing.
Way = ThinkingWay
# What a request asks for: no thinking, or some.
Asked = Literal["off", "on"]
# «refused»: the server answered such a request with an error.
Verdict = Literal["effective", "not_effective", "refused"]
# (field, member of it or None, value as JSON)
Setting = tuple[str, str | None, bytes]

# Names of models come from clients: what is learned of them is bounded.
MOST_LEARNED = 1000
# Tokens of a budget, where a server knows levels only.
_LOW, _MEDIUM = 2048, 8192
_MEMBERS = ("enable_thinking", "thinking")


class LearnedSwitch(Struct, frozen=True, kw_only=True):
    """What became of one way to tell one model. `at`: milliseconds since 1970."""

    model: str
    asked: Asked
    way: Way
    verdict: Verdict
    at: int


class Switch(NamedTuple):
    """What one request says of thinking."""

    # «off», «on», «budget:N», a level; «inherit»: nothing, and nothing of the client's.
    value: str
    way: Way
    # The client's own word is overruled.
    overrules: bool = False
    # The assistant says it, not the client.
    own: bool = True

    @property
    def asked(self) -> Asked:
        """Whether there is to be any."""
        return "off" if self.value == "off" else "on"

    def settings(self) -> list[Setting]:
        """The fields that say it."""
        return [] if self.value == "inherit" else settings(self.way, self.value)


class Switches:
    """What is known of the switches of one upstream, in one worker."""

    __slots__ = ("_learned", "_opens", "ways")

    def __init__(self, ways: Sequence[Way]) -> None:
        """`ways`: those of its kind, at least one, the likeliest first."""
        self.ways = tuple(ways)
        # By model and what is asked: the verdict on each way.
        self._learned: dict[tuple[str, Asked], dict[Way, Verdict]] = {}
        # Models whose template opens the thought.
        self._opens: frozenset[str] = frozenset()

    def way(self, model: str, asked: Asked) -> Way:
        """The way for the next request: the first that nothing speaks against; else one that is no error."""
        known = self._learned.get((model, asked))
        if known is None:
            return self.ways[0]
        # «minimal» differs from «effort» only where there is to be none.
        ways = [way for way in self.ways if asked == "off" or way != "minimal"]
        free = [way for way in ways if known.get(way) != "refused"]
        return next((way for way in free if known.get(way) != "not_effective"), free[0] if free else "omit")

    def verdict(self, model: str, asked: Asked, way: Way) -> Verdict | None:
        """What became of it; None: nobody knows yet."""
        return self._learned.get((model, asked), {}).get(way)

    def note(self, model: str, asked: Asked, way: Way, verdict: Verdict) -> bool:
        """True where that is news. What did not work once is not believed to work because it once did."""
        known = self._learned.get((model, asked))
        if known is None:
            if len(self._learned) >= MOST_LEARNED:
                return False
            known = self._learned[model, asked] = {}
        before = known.get(way)
        if before == verdict or (verdict == "effective" and before is not None):
            return False
        known[way] = verdict
        return True

    def learn(self, found: Iterable[LearnedSwitch]) -> None:
        """What other workers have seen."""
        for one in found:
            self.note(one.model, one.asked, one.way, one.verdict)

    def opens_thought(self, model: str) -> bool:
        """The model's template opens the thought, so that its answer begins inside of it."""
        return model in self._opens

    def note_opens(self, model: str, opens: bool) -> None:
        """As seen in an answer."""
        if opens and len(self._opens) < MOST_LEARNED:
            self._opens |= {model}
        elif not opens:
            self._opens -= {model}


def settings(way: Way, value: str) -> list[Setting]:
    """`value` in the words of `way`."""
    off, budget = value == "off", _budget(value)
    level = _level(value, budget)
    found: list[Setting] = []
    match way:
        case "effort" | "minimal":
            none = "none" if way == "effort" else "minimal"
            found = [("reasoning_effort", None, _quoted(none if off else level))]
        case "template":
            found = [("chat_template_kwargs", member, _truth(not off)) for member in _MEMBERS]
            if budget is not None:
                found.append(("thinking_token_budget", None, b"%d" % budget))
            elif not off and value != "on":
                found.append(("reasoning_effort", None, _quoted(level)))
        case "reasoning" | "enabled" if budget is not None:
            found = [("reasoning", "max_tokens", b"%d" % budget)]
        case "reasoning" | "enabled" if value == "on" or (off and way == "enabled"):
            found = [("reasoning", "enabled", _truth(not off))]
        case "reasoning" | "enabled":
            found = [("reasoning", "effort", _quoted("none" if off else level))]
        case "type":
            found = [("thinking", None, b'{"type":"disabled"}' if off else b'{"type":"enabled"}')]
        case "flag":
            found = [("enable_thinking", None, _truth(not off))]
            if budget is not None:
                found.append(("thinking_budget", None, b"%d" % budget))
        case "omit":
            pass
    return found


def _budget(value: str) -> int | None:
    name, _, tokens = value.partition(":")
    return int(tokens) if name == "budget" else None


def _level(value: str, budget: int | None) -> str:
    if budget is not None:
        return "low" if budget <= _LOW else "medium" if budget <= _MEDIUM else "high"
    return "medium" if value == "on" else value


def _truth(on: bool) -> bytes:
    return b"true" if on else b"false"


def _quoted(word: str) -> bytes:
    return orjson.dumps(word)
