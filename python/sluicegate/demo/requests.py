"""What the demo upstream reads of a request: typed, checked, and refused in OpenAI's error shape."""

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

MAX_BODY_BYTES = 16 * 1024 * 1024

Count = Annotated[int, Meta(ge=1)]
Choices = Annotated[int, Meta(ge=1, le=128)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
Stops = str | Annotated[list[str], Meta(max_length=4)] | None
Inputs = str | list[str | int | list[int]]


class DemoError(Exception):
    """A request that the demo refuses, as OpenAI would."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        kind = "invalid_request_error"
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class StreamOptions(Struct, frozen=True):
    """`stream_options`."""

    include_usage: bool = False


class Function(Struct, frozen=True):
    """A function that the client offers."""

    name: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    parameters: dict[str, Any] | None = None


class Tool(Struct, frozen=True):
    """One entry of `tools`."""

    type: Literal["function"]
    function: Function


class FunctionName(Struct, frozen=True):
    """The function that `tool_choice` names."""

    name: str


class NamedTool(Struct, frozen=True):
    """`tool_choice` as an object."""

    type: Literal["function"]
    function: FunctionName


class JsonSchema(Struct, frozen=True):
    """`response_format.json_schema`."""

    name: str
    schema: dict[str, Any] = {}


class ResponseFormat(Struct, frozen=True):
    """`response_format`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Message(Struct, frozen=True):
    """One message; what is not read here (names, audio, refusals) is ignored."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        """The text of the content, whatever its form."""
        if self.content is None:
            return ""
        if isinstance(self.content, str):
            return self.content
        return " ".join(str(part.get("text", "")) for part in self.content if part.get("type") == "text")


class ChatRequest(Struct, frozen=True):
    """The body of `/v1/chat/completions`."""

    model: str
    messages: Annotated[list[Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Choices | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Temperature | None = None
    stop: Stops = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None

    @property
    def limit(self) -> int | None:
        """The newer field wins, as at OpenAI."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(Struct, frozen=True):
    """The body of `/v1/completions`."""

    model: str
    prompt: Inputs = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Choices | None = None
    max_tokens: Count | None = None
    temperature: Temperature | None = None
    stop: Stops = None
    echo: bool | None = None


class EmbeddingRequest(Struct, frozen=True):
    """The body of `/v1/embeddings`."""

    model: str
    input: Inputs
    dimensions: Annotated[int, Meta(ge=1, le=3072)] | None = None
    encoding_format: Literal["float", "base64"] | None = None


Body = TypeVar("Body", ChatRequest, CompletionRequest, EmbeddingRequest)
_PLACE = re.compile(r"at `\$\.?([^`]*)`|(?:missing required field) `([^`]+)`")


def read(kind: type[Body], body: bytes) -> Body:
    """Decode a body; DemoError says what is wrong with it and where."""
    try:
        request = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        place = _PLACE.search(str(error))
        param = next((group for group in place.groups() if group), None) if place else None
        raise DemoError(400, f"Invalid request: {error}.", param=param) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise DemoError(400, "The body is not valid JSON.", code="invalid_json") from None
    if not isinstance(request, EmbeddingRequest) and request.stream_options and not request.stream:
        raise DemoError(
            400, "'stream_options' is only allowed when 'stream' is true.", param="stream_options"
        )
    return request


def texts(given: Inputs, param: str) -> list[str]:
    """The four forms of a prompt or an input as a list of texts; token numbers become words."""
    if isinstance(given, str):
        return [given]
    if not given:
        raise DemoError(400, f"'{param}' must not be empty.", param=param, code="invalid_value")
    if all(isinstance(item, int) for item in given):
        return [" ".join(str(token) for token in given)]
    if any(isinstance(item, int) for item in given):
        raise DemoError(400, f"'{param}' mixes texts and tokens.", param=param, code="invalid_type")
    return [item if isinstance(item, str) else " ".join(map(str, _tokens(item))) for item in given]


def _tokens(item: int | list[int]) -> list[int]:
    return [item] if isinstance(item, int) else item


def stops(request: ChatRequest | CompletionRequest) -> tuple[str, ...]:
    """The stop texts, empty ones ignored."""
    given = [request.stop] if isinstance(request.stop, str) else request.stop or []
    return tuple(text for text in given if text)
