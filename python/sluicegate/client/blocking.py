"""The blocking client, for programs and threads without an event loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

from sluicegate.client import steps
from sluicegate.client.blocking_transport import BlockingTransport, run_now
from sluicegate.client.discovery import Discovery
from sluicegate.client.embedding import embedding_request
from sluicegate.client.request import Ask, Messages, Options
from sluicegate.client.session import Session
from sluicegate.client.settings import Timeouts, read
from sluicegate.client.stream import Stream

if TYPE_CHECKING:
    from types import TracebackType

    from sluicegate.client.answer import Answer, Embeddings
    from sluicegate.client.middleware import Middleware
    from sluicegate.client.tools import ToolLike

T = TypeVar("T")


class Client:
    """Calls one OpenAI-compatible server and waits for it. It may be shared by threads, and needs no event
    loop.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float | Timeouts | None = None,
        middleware: Sequence[Middleware] = (),
        **settings: Any,
    ) -> None:
        """What is not given is read from OPENAI_COMPATIBLE_BASE_URL, …_API_KEY and …_MODEL.

        `timeout` (30 s): the longest silence, to the begin of the answer and between its parts; see
        `Timeouts`. `settings`: `headers` (dict), `ca_file` (PEM of the only authorities to trust), `http2`
        (offer it, True). Raises SettingsError.
        """
        made = read(base_url, api_key, model, timeout, settings)
        self._session = Session(made, BlockingTransport(), middleware)
        self._discovery = Discovery(self._session)

    def __repr__(self) -> str:
        return f"Client({self._session.origin!r}, model={self._session.settings.model!r})"

    @overload
    def generate(
        self,
        messages: Messages,
        *,
        tools: Sequence[ToolLike] = (),
        output: None = None,
        **options: Unpack[Options],
    ) -> Answer[None]: ...
    @overload
    def generate(
        self,
        messages: Messages,
        *,
        tools: Sequence[ToolLike] = (),
        output: type[T],
        **options: Unpack[Options],
    ) -> Answer[T]: ...
    def generate(
        self,
        messages: Messages,
        *,
        tools: Sequence[ToolLike] = (),
        output: type[Any] | None = None,
        **options: Unpack[Options],
    ) -> Answer[Any]:
        """The whole answer to a text or a list of messages.

        `tools`: functions that the model may call; they are run, and the model is asked again, up to
        `max_steps` times. `output`: the type of the answer's `output`. Raises the errors of
        `sluicegate.client`.
        """
        ask = Ask.of(messages, tools, output, options)
        model = options.get("model") or self._model()
        return run_now(steps.generate(self._session, ask, model))

    @overload
    def stream(
        self,
        messages: Messages,
        *,
        tools: Sequence[ToolLike] = (),
        output: None = None,
        **options: Unpack[Options],
    ) -> Stream[None]: ...
    @overload
    def stream(
        self,
        messages: Messages,
        *,
        tools: Sequence[ToolLike] = (),
        output: type[T],
        **options: Unpack[Options],
    ) -> Stream[T]: ...
    def stream(
        self,
        messages: Messages,
        *,
        tools: Sequence[ToolLike] = (),
        output: type[Any] | None = None,
        **options: Unpack[Options],
    ) -> Stream[Any]:
        """As `generate`, but the answer comes in chunks; with tools, the chunks of all steps one after
        another.
        """
        ask = Ask.of(messages, tools, output, options)
        named = options.get("model")

        async def model() -> str:
            return named or await self._discovery.model()

        return Stream(steps.Streaming(self._session, ask), model)

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        model: str | None = None,
        timeout: float | Timeouts | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Embeddings:
        """The vectors of one or more texts."""
        model = model or self._model()
        request, wanted = embedding_request(texts, model, timeout, extra)
        return run_now(self._session.embed(request, wanted))

    def available_models(self, *, fallback: bool = True) -> tuple[str, ...]:
        """The models that the server lists; a built-in list if it gives none within 5 s.

        With `fallback=False`, the error is raised instead.
        """
        return run_now(self._discovery.models(fallback=fallback))

    def first_available_model(self) -> str:
        """The first of them; `gpt-3.5-turbo` where the server gave no list within 5 s."""
        return run_now(self._discovery.first_model())

    def supports_tools(self, model: str | None = None) -> bool:
        """Whether the model calls tools: what the server's list says, or one tiny request with a tool."""
        return run_now(self._discovery.supports_tools(model or self._model()))

    def close(self) -> None:
        """End what is under way; the client is of no further use."""
        self._session.close()

    def _model(self) -> str:
        return run_now(self._discovery.model())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
