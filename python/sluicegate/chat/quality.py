"""What an assistant wants of the quality of its answers."""

from msgspec import Struct

from sluicegate.assistants.model import AssistantSpec, JudgeSpec, QualityAction
from sluicegate.engine import QualityChecks


class QualityRule(Struct, frozen=True):
    """What an assistant wants of the score of its answers."""

    least: int
    action: QualityAction
    blocks_unscored: bool
    stream: str
    checks: QualityChecks
    # How certain the model was counts as well.
    weighs: bool = False
    # So much text of a stream is looked at before it begins.
    prefix: int = 0
    judge: JudgeSpec | None = None


def quality_of(spec: AssistantSpec) -> QualityRule | None:
    """None: its answers are not scored."""
    if not spec.quality_score:
        return None
    checks = QualityChecks(
        script=spec.quality_script, banned=spec.quality_banned, required=spec.quality_required
    )
    return QualityRule(
        spec.quality_score,
        spec.quality_action,
        spec.quality_unscored == "block",
        spec.quality_stream,
        checks,
        spec.quality_logprobs,
        spec.quality_prefix,
        spec.quality_judge,
    )
