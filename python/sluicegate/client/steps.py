"""The steps of one call: ask, run the tools that the model calls, ask again, until it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec.structs import replace

from sluicegate.client import answer as answers
from sluicegate.client import execution, structured
from sluicegate.client.answer import Answer, Step, ToolCall, ToolResult
from sluicegate.client.errors import ClientError, OutputError, StepLimitError, StreamInterruptedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sluicegate.client.request import Ask, Request
    from sluicegate.client.session import Session
    from sluicegate.client.transport import Line
    from sluicegate.engine import Chunk

T = TypeVar("T")


class Steps(Generic[T]):
    """The conversation as it grows, step by step."""

    def __init__(self, session: Session, ask: Ask[T], model: str) -> None:
        self._session = session
        self._ask = ask
        self._model = model
        self._messages: list[Mapping[str, Any]] = list(ask.messages)
        self._steps: list[Step] = []

    def request(self, *, stream: bool) -> Request:
        """The request of the next step."""
        return self._ask.request(self._model, self._messages, stream=stream)

    async def settle(self, answer: Answer[Any]) -> Answer[T] | None:
        """Take in the answer of a step: the whole answer, or None where its tools ran and the model is
        asked again.

        Raises StepLimitError and OutputError.
        """
        ask = self._ask
        mine = ask.toolbox.functions
        run = bool(mine) and bool(answer.tool_calls) and not self._for_caller(answer.tool_calls)
        self._messages.append(answer.message())
        results: tuple[ToolResult, ...] = ()
        last = len(self._steps) + 1 >= ask.max_steps
        if run and not last:
            approve = ask.options.get("approve")
            results = await execution.results(
                answer.tool_calls, ask.toolbox, self._session.transport, approve, ask.tool_timeout
            )
            self._messages += [
                {"role": "tool", "tool_call_id": result.call.id, "content": result.content}
                for result in results
            ]
        self._steps.append(Step(answer.content, answer.thinking, answer.tool_calls, results, answer.usage))
        if run and not last:
            return None
        whole = self._whole(answer)
        if run:
            error = StepLimitError(
                f"The model still calls tools after {ask.max_steps} requests (max_steps). Raise it, or check "
                "that the tools' results help the model.",
                code="step_limit",
            )
            error.partial = whole
            raise error
        return self._with_output(whole)

    def interrupted(self, error: ClientError, answer: Answer[Any]) -> ClientError:
        """The error with what had come."""
        error.partial = self._whole(answer)
        return error

    def _for_caller(self, calls: tuple[ToolCall, ...]) -> bool:
        """A call of a tool that was only declared is the caller's to answer."""
        declared = {
            (tool.get("function") or {}).get("name") for tool in self._ask.toolbox.declarations
        } - self._ask.toolbox.functions.keys()
        return any(call.name in declared for call in calls)

    def _whole(self, answer: Answer[Any]) -> Answer[Any]:
        usage = answers.total([*(step.usage for step in self._steps)]) if self._steps else answer.usage
        return replace(
            answer,
            model=answer.model or self._model,
            usage=usage,
            steps=tuple(self._steps),
            messages=tuple(self._messages),
        )

    def _with_output(self, answer: Answer[Any]) -> Answer[T]:
        kind = self._ask.output
        if kind is None or (answer.tool_calls and not answer.content):
            return answer
        try:
            return replace(answer, output=structured.value(kind, answer))
        except OutputError as error:
            error.partial = answer
            raise


async def generate(session: Session, ask: Ask[T], model: str) -> Answer[T]:
    """All steps, each with a plain answer."""
    steps = Steps(session, ask, model)
    while True:
        whole = await steps.settle(await session.send(steps.request(stream=False)))
        if whole is not None:
            return whole


class Streaming(Generic[T]):
    """All steps, each with a streamed answer."""

    def __init__(self, session: Session, ask: Ask[T]) -> None:
        self._session = session
        self._ask = ask
        self._steps: Steps[T] | None = None
        self._request: Request | None = None
        self._line: Line | None = None
        self._over = False
        self.answer: Answer[T] | None = None

    async def more(self, model: Any) -> list[Chunk]:
        """The next chunks; none at the end, when `answer` is there. `model` gives the model's name, once."""
        # In one function, which most chunks go through: each further one is entered and left once a batch.
        while not self._over:
            try:
                if (line := self._line) is None:
                    chunks = await self._begin(model)
                elif not (chunks := await line.more()):
                    await self._end(line)
                elif self._session.chain.sees_chunks and self._request is not None:
                    chunks = await self._session.chain.on_chunks(self._request, chunks)
            except BaseException:
                self.close()
                raise
            if chunks:
                return chunks
        return []

    def close(self) -> None:
        """Nothing more is wanted: the upstream's connection is closed."""
        self._over = True
        if self._line is not None:
            self._line.close()

    async def _begin(self, model: Any) -> list[Chunk]:
        session = self._session
        steps = self._steps
        if steps is None:
            steps = self._steps = Steps(session, self._ask, await model())
        request, answer = await session.chain.before(steps.request(stream=True))
        self._request = request
        if isinstance(answer, Answer):
            await self._settle(steps, answer)
            return [answer.chunk()]
        attempt = 1
        while self._line is None:
            try:
                self._line = await session.begin(request)
            except ClientError as error:
                await session.pause(request, error, attempt)
                attempt += 1
        return []

    async def _end(self, line: Line) -> None:
        """The stream of a step is over."""
        chunks, request, steps = line.chunks, self._request, self._steps
        if chunks is None or request is None or steps is None:
            return
        self._line = None
        answer: Answer[Any] = answers.of_chunks(chunks)
        outcome = chunks.outcome
        if outcome is not None and outcome.failure is not None:
            error = self._session.teller.error(outcome.failure, request.model)
            raise steps.interrupted(error, answer)
        if outcome is None or outcome.state != "finished":
            raise steps.interrupted(StreamInterruptedError("The stream was closed before its end."), answer)
        await self._settle(steps, await self._session.chain.after(request, answer))

    async def _settle(self, steps: Steps[T], answer: Answer[Any]) -> None:
        whole = await steps.settle(answer)
        if whole is not None:
            self.answer = whole
            self._over = True
