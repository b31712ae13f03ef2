"""The score of an answer, and what follows where it is too low: told, asked again or elsewhere, refused."""

from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Struct

from sluicegate.assistants.model import AssistantSpec, QualityAction
from sluicegate.engine import QualityChecks, Recipe, RequestError, stream_of
from sluicegate.errors import ClientGoneError, GatewayError, header_value, quality_below_threshold
from sluicegate.usage.settle import used_of

if TYPE_CHECKING:
    from sluicegate.chat.call import Answered, Calls, Job
    from sluicegate.chat.parts import Parts
    from sluicegate.chat.prepare import Ask
    from sluicegate.upstreams.model import Candidate
    from sluicegate.usage.settle import Entry

METHOD = b"checks"
# The answer that is asked for again is asked for at half the temperature.
_COOLER = 0.5
_USUAL_TEMPERATURE = 1.0
# A stream that is held back is asked for as a whole answer.
_WHOLE = Recipe(fields=[("stream", b"false", True)], denied=["stream_options"])


class QualityRule(Struct, frozen=True):
    """What an assistant wants of the score of its answers."""

    least: int
    action: QualityAction
    blocks_unscored: bool
    holds_streams: bool
    checks: QualityChecks


class Grade(NamedTuple):
    """What was found in one answer. `score` None: nothing can be said of it."""

    score: int | None
    failed: tuple[str, ...] = ()


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
        spec.quality_stream == "hold",
        checks,
    )


async def graded(calls: "Calls", job: "Job", parts: "Parts", rule: QualityRule) -> "Answered":
    """The answer that the client gets. Raises 422 where none is good enough and the assistant says so."""
    if not job.ask.request.stream:
        return await _call(calls, job, parts, rule)
    if rule.holds_streams:
        return await _held(calls, job, parts, rule)
    entry, body = job.entry, job.ask.request.body
    # What is sent cannot be taken back: the score of a stream is for the record alone.
    entry.grade = lambda outcome: _note(entry, _of(rule, body, outcome.answer))
    return await calls.call(msgspec.structs.replace(job, extra={**job.extra, "keep": True}))


async def _held(calls: "Calls", job: "Job", parts: "Parts", rule: QualityRule) -> "Answered":
    """A stream that begins when its whole answer is known to be good enough."""
    asked = job.ask.request
    body, _ = asked.compose(_WHOLE, None, False, None)
    try:
        whole = parts.scan("chat", body)
    except RequestError as error:
        raise RuntimeError("a request that was read cannot be read again") from error
    extra = {name: value for name, value in job.extra.items() if name != "keep"}
    ask = job.ask._replace(request=whole)
    answered = await _call(calls, msgspec.structs.replace(job, ask=ask, extra=extra), parts, rule)
    try:
        held = stream_of(answered.reply.body, not asked.include_usage)
    except ValueError:
        # Valid JSON, and no chat: as the client of a plain answer would have it.
        held = answered.reply.body
    return msgspec.structs.replace(answered, held=held)


async def _call(calls: "Calls", job: "Job", parts: "Parts", rule: QualityRule) -> "Answered":
    """The best of as many answers as the action allows."""
    entry = job.entry
    answered = await calls.call(job)
    grade = _judge(rule, job, answered)
    asked: list[Candidate] = []
    while _fails(rule, grade) and (again := _again(job, rule, answered, asked)) and parts.budget.withdraw():
        _leave(entry, answered, parts)
        try:
            other = await calls.call(again, asked if rule.action == "escalate" else ())
        except ClientGoneError:
            _discard(entry, answered, parts)
            raise
        except GatewayError:
            # Nothing better can be had: the client gets what there is, and its score.
            break
        found = _judge(rule, job, other)
        asked.append(other.candidate)
        if (found.score or 0) < (grade.score or 0):
            _leave(entry, other, parts)
            _discard(entry, other, parts)
        else:
            _discard(entry, answered, parts)
            answered, grade = other, found
    _note(entry, grade)
    if _blocks(rule, grade):
        _discard(entry, answered, parts)
        raise quality_below_threshold(job.ask.plan.name, grade.score, grade.failed)
    if asked:
        # The last that was asked need not be the one whose answer it is.
        upstream, model = answered.candidate
        entry.upstream, entry.upstream_model = upstream.name, model
        entry.price = parts.scopes.price(answered.candidate)
    return answered


def _again(job: "Job", rule: QualityRule, answered: "Answered", asked: "list[Candidate]") -> "Job | None":
    """What is asked next; None: nothing."""
    if rule.action == "escalate":
        if not asked:
            asked.append(answered.candidate)
        everybody = [one for step in job.ask.plan.steps for one in step]
        # Counted as well: who is in a pause is passed over, and the first is asked again.
        left = any(one not in asked for one in everybody) and len(asked) < len(everybody)
        return job if left else None
    if rule.action == "retry" and not asked:
        asked.append(answered.candidate)
        return msgspec.structs.replace(job, ask=_cooler(job))
    return None


def _judge(rule: QualityRule, job: "Job", answered: "Answered") -> Grade:
    return _of(rule, job.ask.request.body, answered.reply.body)


def _of(rule: QualityRule, request: bytes, answer: bytes | None) -> Grade:
    found = None if answer is None else rule.checks.check(request, answer)
    return Grade(None) if found is None else Grade(found[0], tuple(found[1]))


def _fails(rule: QualityRule, grade: Grade) -> bool:
    return rule.blocks_unscored if grade.score is None else grade.score < rule.least


def _blocks(rule: QualityRule, grade: Grade) -> bool:
    """An answer without a score passes only where that is said."""
    if grade.score is None:
        return rule.blocks_unscored
    return rule.action == "block" and grade.score < rule.least


def _note(entry: "Entry", grade: Grade) -> None:
    entry.score = grade.score
    entry.failed_checks = ",".join(grade.failed) or None
    told = "none" if grade.score is None else str(grade.score)
    entry.limit_headers = [
        *entry.limit_headers,
        (b"x-quality-score", header_value(told)),
        (b"x-quality-method", METHOD),
    ]
    if grade.failed:
        entry.limit_headers.append((b"x-quality-failed", header_value(", ".join(grade.failed))))


def _leave(entry: "Entry", answered: "Answered", parts: "Parts") -> None:
    """What was reserved of the limits of its upstream is used, whoever gets the answer."""
    if entry.at_upstream is not None:
        used = used_of(entry, answered.reply.outcome)
        micros = parts.scopes.price(answered.candidate).cost(used.prompt, used.completion, used.cached)
        entry.at_upstream.settle(used.prompt + used.completion, micros)
        entry.at_upstream = None


def _discard(entry: "Entry", answered: "Answered", parts: "Parts") -> None:
    """An answer that nobody gets has its price all the same."""
    upstream, model = answered.candidate
    price = parts.scopes.price(answered.candidate)
    outcome = answered.reply.outcome
    upstream.note_outcome(model, outcome)
    used = used_of(entry, outcome)
    entry.spent_prompt += used.prompt
    entry.spent_completion += used.completion
    entry.spent_micros += price.cost(used.prompt, used.completion, used.cached)


def _cooler(job: "Job") -> "Ask":
    """The same request at a lower temperature, whoever has set it."""
    plan = job.ask.plan
    assert plan.assistant is not None  # noqa: S101 (only assistants have a rule)
    spec = plan.assistant.spec
    given = spec.temperature if spec.temperature is not None else _USUAL_TEMPERATURE
    cooler = msgspec.structs.replace(spec, temperature=given * _COOLER, locked=spec.locked | {"temperature"})
    assistant = msgspec.structs.replace(plan.assistant, spec=cooler)
    return job.ask._replace(plan=msgspec.structs.replace(plan, assistant=assistant, recipes={}))
