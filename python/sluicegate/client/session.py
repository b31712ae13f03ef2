"""What both clients share: requests through middleware to the server, and the errors that come of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from sluicegate.client import answer as answers
from sluicegate.client.errors import (
    ClientError,
    ClosedError,
    InvalidRequestError,
    ServerError,
    SettingsError,
    Teller,
)
from sluicegate.client.middleware import Chain, Middleware
from sluicegate.client.request import Request, without_stream_options
from sluicegate.engine import Reply, Upstream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sluicegate.client.answer import Answer, Embeddings
    from sluicegate.client.settings import Settings, Timeouts
    from sluicegate.client.transport import Line, Transport
    from sluicegate.engine import Failure

# Of names that come from callers; more models than anybody uses.
_MOST_MODELS = 1024
# A program may call whatever its user can reach: the guard of the gateway is against its clients.
_ANY_ADDRESS = ["0.0.0.0/0", "::/0"]


class Session:
    """One server, its connections and the middleware, on one transport."""

    def __init__(self, settings: Settings, transport: Transport, middleware: Sequence[Middleware]) -> None:
        """Raises SettingsError for a base URL, header or file that cannot be used."""
        clocks = settings.timeouts
        try:
            self._upstream: Upstream | None = Upstream(
                settings.base_url,
                api_key=settings.api_key,
                headers=list(settings.headers),
                connect_timeout=clocks.connect,
                first_event_timeout=clocks.first_event,
                idle_timeout=clocks.idle,
                total_timeout=clocks.total,
                allow_private_networks=_ANY_ADDRESS,
                ca_file=settings.ca_file,
                http2=settings.http2,
            )
        except ValueError as error:
            raise SettingsError(str(error)) from None
        self.settings = settings
        self.transport = transport
        self.chain = Chain(middleware)
        self.origin = self._upstream.origin
        self.teller = Teller(self.origin, settings.api_key)
        self._lines: WeakSet[Line] = WeakSet()
        self._refuses_stream_options: set[str] = set()

    def close(self) -> None:
        """End what is under way, and refuse further calls."""
        # With it go the idle connections.
        self._upstream = None
        for line in list(self._lines):
            line.close()

    def open(self, operation: str, body: bytes | None, **options: Any) -> Line:
        """Start a call."""
        if self._upstream is None:
            raise ClosedError("This client is closed: make a new one.")
        line = self.transport.open(self._upstream, operation, body, options)
        self._lines.add(line)
        return line

    async def send(self, request: Request) -> Answer[Any]:
        """A plain chat request, through the middleware."""
        answer: Answer[Any] = await self._answered(request, self._chat)
        return answer

    async def embed(self, request: Request, wanted: int) -> Embeddings:
        """A request for embeddings, through the middleware."""

        async def once(request: Request) -> Embeddings:
            body = await self.plain(request.operation, request.encode(), request.model, request.timeouts)
            return answers.embeddings_of_body(body, wanted)

        embeddings: Embeddings = await self._answered(request, once)
        return embeddings

    async def _chat(self, request: Request) -> Answer[None]:
        choices = request.body.get("n", 1)
        return answers.of_body(
            await self.plain("chat", request.encode(), request.model, request.timeouts, choices=choices)
        )

    async def _answered(self, request: Request, once: Any) -> Any:
        request, given = await self.chain.before(request)
        if given is not None:
            return given
        attempt = 1
        while True:
            try:
                result = await once(request)
            except ClientError as error:
                await self.pause(request, error, attempt)
                attempt += 1
            else:
                return await self.chain.after(request, result)

    async def pause(self, request: Request, error: ClientError, attempt: int) -> None:
        """Wait before another try, or raise the error if there is none."""
        wait = await self.chain.wait_before_retry(request, error, attempt)
        if wait is None:
            raise error
        await self.transport.sleep(wait)

    async def plain(
        self, operation: str, body: bytes | None, model: str, timeouts: Timeouts | None, **options: Any
    ) -> bytes:
        """The body of a plain answer, after one try."""
        line = self.open(operation, body, **options, **clocks_of(timeouts))
        try:
            reply: Reply = await line.reply()
        except BaseException:
            line.close()
            raise
        if reply.failure is not None:
            raise self.teller.error(reply.failure, model)
        return reply.body

    async def begin(self, request: Request) -> Line:
        """Start a streamed chat; returns when its first event is there."""
        if request.model in self._refuses_stream_options:
            request = without_stream_options(request)
        line, failure = await self._begin(request)
        if failure is not None and _refuses_stream_options(failure) and "stream_options" in request.body:
            # Older servers do not know them; which ones has to be learned, for each model.
            if len(self._refuses_stream_options) < _MOST_MODELS:
                self._refuses_stream_options.add(request.model)
            line, failure = await self._begin(without_stream_options(request))
        if failure is not None:
            raise self.teller.error(failure, request.model)
        return line

    async def _begin(self, request: Request) -> tuple[Line, Failure | None]:
        choices = request.body.get("n", 1)
        if not isinstance(choices, int) or choices < 1:
            raise InvalidRequestError("n must be a whole number of at least 1.")
        line = self.open(
            "chat", request.encode(), stream=True, choices=choices, **clocks_of(request.timeouts)
        )
        try:
            reply = await line.reply()
        except BaseException:
            line.close()
            raise
        if reply.failure is None and line.chunks is None:
            raise ServerError("A stream was asked for, and none came.")
        return line, reply.failure


def clocks_of(timeouts: Timeouts | None) -> dict[str, float]:
    """The clocks of one call; connecting keeps the client's."""
    if timeouts is None:
        return {}
    return {
        "first_event_timeout": timeouts.first_event,
        "idle_timeout": timeouts.idle,
        "total_timeout": timeouts.total,
    }


def _refuses_stream_options(failure: Failure) -> bool:
    return failure.status in (400, 422) and "stream_options" in f"{failure.param} {failure.message}"
