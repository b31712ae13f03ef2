"""What is asked: the options of a call, and the request that goes to the server at each of its steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, Literal, TypedDict, TypeVar

import msgspec
import orjson
from msgspec import Struct

from sluicegate.client.answer import ToolCall
from sluicegate.client.errors import InvalidRequestError
from sluicegate.client.settings import Timeouts
from sluicegate.client.structured import response_format
from sluicegate.client.tools import Toolbox, ToolLike

T = TypeVar("T")
Messages = str | Mapping[str, Any] | Sequence[Mapping[str, Any]]
# True lets a call happen; False or a reason does not, and the model is told.
Approval = bool | str
Approve = Callable[[ToolCall], Approval | Awaitable[Approval]]
Operation = Literal["chat", "embeddings"]

DEFAULT_STEPS = 10
DEFAULT_TOOL_TIMEOUT = 30.0


class Options(TypedDict, total=False):
    """The options of `generate` and `stream`; what is not given is not sent.

    `max_steps`: requests at most, where the model goes on calling tools (10). `tool_timeout`: seconds for
    each tool call (30), None for no limit. `approve` decides on each call before it runs. `timeout`: the
    clocks of this call. `extra`: any further field of the request, as the server knows it.
    """

    model: str | None
    tool_choice: str | Mapping[str, Any]
    max_tokens: int | None
    temperature: float | None
    max_steps: int
    tool_timeout: float | None
    approve: Approve | None
    timeout: float | Timeouts | None
    extra: Mapping[str, Any]


class Request(Struct, frozen=True):
    """One request, as middleware sees it. `body` is what is sent as JSON; to change it, make a new one:
    `msgspec.structs.replace(request, body={**request.body, "seed": 1})`.
    """

    operation: Operation
    model: str
    body: Mapping[str, Any]
    stream: bool = False
    timeouts: Timeouts | None = None

    def encode(self) -> bytes:
        """Raises InvalidRequestError for a value that JSON cannot hold."""
        try:
            return orjson.dumps(self.body)
        except TypeError as error:
            raise InvalidRequestError(f"The request cannot be written as JSON: {error}.") from None


class Ask(Struct, Generic[T], frozen=True):
    """One call of `generate` or `stream`, with all that its steps have in common."""

    messages: tuple[Mapping[str, Any], ...]
    toolbox: Toolbox
    output: type[T] | None
    options: Options

    @classmethod
    def of(
        cls, messages: Messages, tools: Sequence[ToolLike], output: type[T] | None, options: Options
    ) -> Ask[T]:
        """Raises InvalidRequestError for messages of a wrong kind, TypeError for an unknown option."""
        unknown = sorted(options.keys() - Options.__annotations__.keys())
        if unknown:
            raise TypeError(f"there is no option {unknown[0]!r}; fields of the request go into extra={{…}}")
        if options.get("max_steps", 1) < 1:
            raise InvalidRequestError("max_steps must be at least 1.")
        return cls(conversation(messages), Toolbox.of(tuple(tools)), output, options)

    @property
    def max_steps(self) -> int:
        """Requests at most."""
        return self.options.get("max_steps", DEFAULT_STEPS)

    @property
    def tool_timeout(self) -> float | None:
        """Seconds for a tool without a timeout of its own."""
        return self.options.get("tool_timeout", DEFAULT_TOOL_TIMEOUT)

    def request(self, model: str, messages: Sequence[Mapping[str, Any]], *, stream: bool) -> Request:
        """The request of one step."""
        options = self.options
        body: dict[str, Any] = {"model": model, "messages": list(messages)}
        if stream:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
        for name in ("max_tokens", "temperature"):
            if options.get(name) is not None:
                body[name] = options[name]
        if self.toolbox.declarations:
            body["tools"] = self.toolbox.declarations
            body["tool_choice"] = options.get("tool_choice", "auto")
        if self.output is not None:
            body["response_format"] = response_format(self.output)
        body.update(options.get("extra", {}))
        timeout = options.get("timeout")
        return Request("chat", model, body, stream, None if timeout is None else Timeouts.of(timeout))


def conversation(messages: Messages) -> tuple[Mapping[str, Any], ...]:
    """A text is a message of the user."""
    if isinstance(messages, str):
        return ({"role": "user", "content": messages},)
    if isinstance(messages, Mapping):
        return (messages,)
    found = tuple(messages)
    for message in found:
        if not isinstance(message, Mapping):
            raise InvalidRequestError(
                f"A message is a dict like {{'role': 'user', 'content': …}}, not {type(message).__name__}. "
                "To go on with an answer, pass its `messages`."
            )
    if not found:
        raise InvalidRequestError("There are no messages: give a text, or a list with at least one message.")
    return found


def without_stream_options(request: Request) -> Request:
    """For servers that do not know them."""
    body = {name: value for name, value in request.body.items() if name != "stream_options"}
    return msgspec.structs.replace(request, body=body)
