"""The score of an answer, and what follows where it is too low: told, asked again or elsewhere, refused."""

import asyncio
from typing import TYPE_CHECKING

import msgspec

from sluicegate.chat.weigh import why_not
from sluicegate.clock import monotonic
from sluicegate.engine import Recipe, RequestError
from sluicegate.errors import ClientGoneError, GatewayError, header_value, quality_below_threshold
from sluicegate.quality.model import Grade, combined
from sluicegate.usage.model import MICROS
from sluicegate.usage.settle import used_of

if TYPE_CHECKING:
    from sluicegate.assistants.model import JudgeSpec
    from sluicegate.chat.call import Answered, Calls, Job
    from sluicegate.chat.form import Form
    from sluicegate.chat.judge import Judge
    from sluicegate.chat.parts import Parts
    from sluicegate.chat.prepare import Ask
    from sluicegate.chat.quality import QualityRule
    from sluicegate.engine import Outcome
    from sluicegate.quality.model import Opinion
    from sluicegate.upstreams.model import Candidate
    from sluicegate.usage.settle import Entry

# The answer that is asked for again is asked for at half the temperature.
_COOLER = 0.5
_USUAL_TEMPERATURE = 1.0
# A stream that is held back is asked for as a whole answer.
_WHOLE = Recipe(fields=[("stream", b"false", True)], denied=["stream_options"])
# Nobody waits any more; what was answered until then has its price.
_LEFT = (ClientGoneError, asyncio.CancelledError)


class Grader:
    """Gets answers that are scored; `weighing`: the calls of those who want log-probabilities."""

    def __init__(
        self, parts: "Parts", calls: "Calls", weighing: "Calls", judge: "Judge", form: "Form"
    ) -> None:
        self._parts = parts
        self._form = form
        self._plain = calls
        self._weighing = weighing
        self._judge = judge

    async def answer(self, job: "Job", rule: "QualityRule") -> "Answered":
        """The answer that the client gets. Raises 422 where none is good enough and the assistant says so."""
        if not job.ask.request.stream:
            return await self._best(job, rule)
        if rule.stream == "hold" or (rule.stream == "prefix-hold" and not self._form.begins):
            return await self._held(job, rule)
        # What is shaped is kept as it is.
        keeping = job.extra if "shape" in job.extra else {**job.extra, "keep": True}
        if rule.stream == "prefix-hold":
            keeping = {**keeping, "hold_bytes": rule.prefix}
            answered = await self._best(msgspec.structs.replace(job, extra=keeping), rule)
        else:
            answered = await self._calls(rule).call(msgspec.structs.replace(job, extra=keeping))
        # What is sent cannot be taken back: the score of the whole stream is for the record alone.
        job.entry.grade = lambda outcome: self._ended(job, rule, answered.candidate, outcome)
        return answered

    def _calls(self, rule: "QualityRule") -> "Calls":
        return self._weighing if rule.weighs else self._plain

    def _ended(self, job: "Job", rule: "QualityRule", candidate: "Candidate", outcome: "Outcome") -> None:
        """A stream has ended."""
        _note(job.entry, rule, self._of(rule, job.ask, candidate, outcome.answer, outcome))
        if rule.judge is not None and outcome.answer is not None and outcome.state == "finished":
            self._judge_later(rule.judge, job, candidate, outcome.answer)

    def _judge_later(self, spec: "JudgeSpec", job: "Job", candidate: "Candidate", answer: bytes) -> None:
        chat = self._form.chat(answer)
        if chat is not None:
            self._judge.begin(spec, job, candidate, chat)

    async def _held(self, job: "Job", rule: "QualityRule") -> "Answered":
        """A stream that begins when its whole answer is known to be good enough."""
        asked = job.ask.request
        body, _ = asked.compose(_WHOLE, None, False, None)
        try:
            whole = self._parts.scan("chat", body)
        except RequestError as error:
            raise RuntimeError("a request that was read cannot be read again") from error
        extra = {name: value for name, value in job.extra.items() if name != "keep"}
        ask = msgspec.structs.replace(job.ask, request=whole)
        answered = await self._best(msgspec.structs.replace(job, ask=ask, extra=extra), rule)
        held = self._form.events(answered.reply.body, not asked.include_usage)
        return msgspec.structs.replace(answered, held=held)

    async def _best(self, job: "Job", rule: "QualityRule") -> "Answered":
        """The best of as many answers as the action allows."""
        entry, parts, calls = job.entry, self._parts, self._calls(rule)
        answered = await calls.call(job)
        began = monotonic()
        grade = await self._grade(rule, job, answered)
        asked: list[Candidate] = []
        while (
            _fails(rule, grade) and (again := _again(job, rule, answered, asked)) and parts.budget.withdraw()
        ):
            _leave(entry, answered, parts)
            entry.asked_again += 1
            try:
                other = await calls.call(again, asked if rule.action == "escalate" else ())
                found = await self._grade(rule, job, other)
            except _LEFT:
                _discard(entry, answered, parts)
                raise
            except GatewayError:
                # Nothing better can be had: the client gets what there is, and its score.
                break
            asked.append(other.candidate)
            if _worth(rule, found) < _worth(rule, grade):
                _leave(entry, other, parts)
                _discard(entry, other, parts)
            else:
                _discard(entry, answered, parts)
                answered, grade = other, found
        entry.scoring_us = int((monotonic() - began) * MICROS)
        _note(entry, rule, grade)
        if _blocks(rule, grade):
            entry.verdict = "blocked"
            _discard(entry, answered, parts)
            raise quality_below_threshold(job.ask.plan.name, grade.score, grade.why)
        if asked:
            # The last that was asked need not be the one whose answer it is.
            upstream, model = answered.candidate
            entry.upstream, entry.upstream_model = upstream.name, model
            entry.price = parts.scopes.price(answered.candidate)
        if rule.judge is not None and not rule.judge.enforced and answered.reply.stream is None:
            self._judge_later(rule.judge, job, answered.candidate, answered.reply.body)
        return answered

    async def _grade(self, rule: "QualityRule", job: "Job", answered: "Answered") -> Grade:
        reply, candidate = answered.reply, answered.candidate
        if reply.stream is not None:
            beginning = reply.stream.beginning()
            checks = (
                None
                if beginning is None
                else rule.checks.check(job.ask.request.body, beginning, partial=True)
            )
            return combined(checks)
        grade = self._of(rule, job.ask, candidate, reply.body, reply.outcome)
        judge = rule.judge
        # What is too low already need not be judged.
        failed = grade.checks is None or grade.checks < rule.least
        if judge is None or not judge.enforced or failed or not self._judge.samples(judge):
            return grade
        # It is one: the checks have read it.
        chat = self._form.chat(reply.body) or reply.body
        try:
            opinion = await self._judge.ask(judge, job, candidate, chat)
        except _LEFT:
            _discard(job.entry, answered, self._parts)
            raise
        return grade.judged(opinion)

    def _of(
        self,
        rule: "QualityRule",
        ask: "Ask",
        candidate: "Candidate",
        answer: bytes | None,
        outcome: "Outcome | None",
    ) -> Grade:
        chat = None if answer is None else self._form.chat(answer)
        checks = None if chat is None else rule.checks.check(ask.request.body, chat)
        if not rule.weighs or outcome is None:
            return combined(checks)
        return combined(checks, self._rank(ask, candidate, outcome))

    def _rank(self, ask: "Ask", candidate: "Candidate", outcome: "Outcome") -> "Opinion":
        """How certain the model was, among its own earlier answers."""
        reason = why_not(candidate)
        if reason is not None and outcome.certainty is None:
            return None, reason
        assistant = ask.plan.assistant
        assert assistant is not None  # noqa: S101 (only assistants have a rule)
        upstream, model = candidate
        whose = (assistant.workspace, assistant.id, upstream.name, model)
        return self._parts.scores.rank(whose, outcome)


def _again(job: "Job", rule: "QualityRule", answered: "Answered", asked: "list[Candidate]") -> "Job | None":
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


def _worth(rule: "QualityRule", grade: Grade) -> tuple[bool, int]:
    """Of two answers the client gets the one with more of it."""
    known = grade.checks if grade.score is None else grade.score
    return not _fails(rule, grade), known or 0


def _fails(rule: "QualityRule", grade: Grade) -> bool:
    return rule.blocks_unscored if grade.score is None else grade.score < rule.least


def _blocks(rule: "QualityRule", grade: Grade) -> bool:
    """An answer without a score passes only where that is said."""
    if grade.score is None:
        return rule.blocks_unscored
    return rule.action == "block" and grade.score < rule.least


def _note(entry: "Entry", rule: "QualityRule", grade: Grade) -> None:
    entry.scored = grade
    entry.verdict = "flagged" if _fails(rule, grade) else "passed"
    told = "none" if grade.score is None else str(grade.score)
    entry.limit_headers = [
        *entry.limit_headers,
        (b"x-quality-score", header_value(told)),
        (b"x-quality-method", header_value(grade.method)),
    ]
    if grade.reason is not None:
        entry.limit_headers.append((b"x-quality-reason", header_value(grade.reason)))
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
    if answered.reply.stream is not None:
        answered.reply.stream.cancel()
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
    return msgspec.structs.replace(
        job.ask, plan=msgspec.structs.replace(plan, assistant=assistant, recipes={})
    )
