"""Running the tools of one step: side by side, each with its time; what fails is told to the model."""

from __future__ import annotations

import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec import Struct

from sluicegate.client.answer import ToolCall, ToolResult

if TYPE_CHECKING:
    from sluicegate.client.request import Approve
    from sluicegate.client.tools import Toolbox


class Job(Struct, frozen=True):
    """One function to run."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    timeout: float | None

    @property
    def is_async(self) -> bool:
        """It runs on the event loop instead of a thread."""
        function = self.function
        return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an object whose call is a coroutine
        )


class Done(Struct, frozen=True):
    """What became of a job: a value, or why there is none."""

    value: Any = None
    error: str | None = None


class Runner(Protocol):
    """Runs jobs side by side; the results are in their order."""

    async def run(self, jobs: Sequence[Job]) -> list[Done]: ...


async def results(
    calls: Sequence[ToolCall],
    toolbox: Toolbox,
    runner: Runner,
    approve: Approve | None,
    timeout: float | None,  # noqa: ASYNC109 - for each tool, not for this
) -> tuple[ToolResult, ...]:
    """The result of each call, in their order. Raises only what `approve` raises."""
    jobs: dict[int, Job] = {}
    refused: dict[int, str] = {}
    for number, call in enumerate(calls):
        prepared = _prepared(call, toolbox, timeout)
        if isinstance(prepared, str):
            refused[number] = prepared
        elif (denied := await _denied(approve, call)) is not None:
            refused[number] = denied
        else:
            jobs[number] = prepared
    done = dict(zip(jobs, await runner.run(list(jobs.values())), strict=True)) if jobs else {}
    return tuple(
        ToolResult(call, refused[number], failed=True) if number in refused else _told(call, done[number])
        for number, call in enumerate(calls)
    )


def _prepared(call: ToolCall, toolbox: Toolbox, timeout: float | None) -> Job | str:
    tool = toolbox.functions.get(call.name)
    if tool is None:
        return f"Error: there is no tool {call.name!r}. There are: {', '.join(toolbox.functions)}."
    try:
        arguments = tool.arguments(call.arguments)
    except msgspec.MsgspecError as error:
        return f"Error: the arguments do not fit the schema: {error}. Correct them and call again."
    return Job(tool.function, arguments, timeout if tool.timeout is None else tool.timeout)


async def _denied(approve: Approve | None, call: ToolCall) -> str | None:
    if approve is None:
        return None
    said = approve(call)
    if isinstance(said, Awaitable):
        said = await said
    if said is True:
        return None
    return f"Error: this call was not allowed{f': {said}' if isinstance(said, str) and said else '.'}"


def _told(call: ToolCall, done: Done) -> ToolResult:
    if done.error is not None:
        return ToolResult(call, f"Error: {done.error}", failed=True)
    value = done.value
    if isinstance(value, str):
        return ToolResult(call, value)
    try:
        return ToolResult(call, msgspec.json.encode(value, enc_hook=_encodable).decode())
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        return ToolResult(call, f"Error: the tool gave a value that JSON cannot hold: {error}", failed=True)


def _encodable(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is no value of JSON")


def failure(error: Exception) -> Done:
    """A tool that raised: its words may help the model."""
    text = str(error)
    return Done(error=f"{type(error).__name__}: {text}" if text else type(error).__name__)


def too_slow(job: Job) -> Done:
    """A tool that ran out of its time. A thread cannot be stopped: it goes on, and nobody waits for it."""
    return Done(error=f"the tool did not answer within {job.timeout:g} s.")


def in_thread(work: Callable[[], Done], tell: Callable[[Done], None]) -> None:
    """Run `work` in a thread of its own, with the caller's context variables.

    A daemon: a tool that hangs must not hold up the end of the program, as the threads of an executor do.
    """
    context = contextvars.copy_context()
    threading.Thread(target=lambda: tell(context.run(work)), name="sluicegate-tool", daemon=True).start()


def call_now(job: Job) -> Done:
    """Run a plain function here."""
    try:
        return Done(job.function(**job.arguments))
    except Exception as error:  # noqa: BLE001 - whatever a tool raises is for the model
        return failure(error)
