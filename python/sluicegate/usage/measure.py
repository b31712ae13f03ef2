"""What was used where the upstream does not say: who counts it, and when."""

from typing import TYPE_CHECKING, Protocol

from sluicegate.usage.tell import Used

if TYPE_CHECKING:
    from sluicegate.engine import Outcome


class Metering(Protocol):
    """Counts what an upstream has not told; `chat.meter.Meter` is one."""

    def begin(self) -> None:
        """The answer is a stream, which has begun."""

    async def measure(self, estimated: int) -> Used:
        """What was used; `estimated`: of the prompt, where that cannot be counted."""

    def measure_now(self, estimated: int) -> Used:
        """The same without waiting."""


def is_untold(outcome: "Outcome") -> bool:
    """The upstream has not said what was used, or nothing that can be right."""
    if outcome.prompt_tokens is None or outcome.usage_suspect:
        return True
    return outcome.completion_tokens is None and outcome.answer_bytes + outcome.thinking_bytes > 0
