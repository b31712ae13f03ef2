"""The composition root: settings in, one ASGI application out. The only place that constructs."""

import asyncio
import signal
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
from starlette.routing import BaseRoute, Mount

from sluicegate import engine as core
from sluicegate import errors, observability
from sluicegate.assistants import configured as assistants
from sluicegate.chat import endpoint as chat
from sluicegate.chat import routes as stored_chats
from sluicegate.chat.count import PromptCounter
from sluicegate.chat.directory import SettingsDirectory, View
from sluicegate.chat.keep import StoredChats
from sluicegate.chat.parts import Parts
from sluicegate.chat.remember import ChatMemory
from sluicegate.chat.scopes import Scopes
from sluicegate.chat.stored import StoredDirectory
from sluicegate.chat.thinking import Verifier
from sluicegate.chat.window import ContextWindows
from sluicegate.clock import wall_seconds
from sluicegate.completions import endpoint as completions
from sluicegate.conversations import routes as conversations
from sluicegate.embeddings import endpoint as embeddings
from sluicegate.errors import GatewayError
from sluicegate.fallback import FALLBACK_DEFAULT
from sluicegate.history.recall import History
from sluicegate.http.body import BodyReader
from sluicegate.http.envelope import Envelope
from sluicegate.http.exchange import JSON_HEADERS, Exchange, exchange_of
from sluicegate.http.head import require_method
from sluicegate.http.proxies import read_proxies
from sluicegate.http.relay import ClientWatches
from sluicegate.http.router import ExactRouter
from sluicegate.keys.authenticate import Authenticator, NoGrants
from sluicegate.keys.model import configured_id
from sluicegate.limits import configured as limits
from sluicegate.limits.admit import Limiter, Scope
from sluicegate.limits.model import NO_LIMITS, rules_of
from sluicegate.limits.near_end import BudgetWarnings
from sluicegate.models import routes as models
from sluicegate.models.catalog import Catalog, Source
from sluicegate.observability import Observability
from sluicegate.quality import endpoint as feedback
from sluicegate.quality.scores import Scores
from sluicegate.responses import endpoint as responses
from sluicegate.responses.expiry import Expiry
from sluicegate.responses.memory import Memory
from sluicegate.responses.pipeline import ResponsesPipeline
from sluicegate.settings import Settings
from sluicegate.storage.errors import StorageError
from sluicegate.storage.shelf import Shelf
from sluicegate.telemetry import routes as telemetry
from sluicegate.telemetry.logs import Log
from sluicegate.upstreams.connect import connect, open_handle
from sluicegate.upstreams.discover import Discovery, Models
from sluicegate.upstreams.kept import KeptUpstreams
from sluicegate.upstreams.model import Upstream
from sluicegate.upstreams.select import RetryBudget
from sluicegate.upstreams.switch_keeper import SwitchKeeper
from sluicegate.upstreams.tokenizers import check_tokenizers
from sluicegate.usage import configured as usage
from sluicegate.usage.model import time_of_id
from sluicegate.usage.parts import Usage
from sluicegate.usage.prices import Prices
from sluicegate.usage.settle import Ledger
from sluicegate.vitals import Watched
from sluicegate.workspaces import configured as workspaces
from sluicegate.workspaces.model import DEFAULT

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from sluicegate.keys.cut import Cutter
    from sluicegate.records import Records
    from sluicegate.storage.location import Location
    from sluicegate.upstreams.survey import Survey

_FIRST_5XX = 500

# A worker waits so long for its database before it begins to listen; it goes on trying after that.
DATABASE_SECONDS = 5.0
DATABASE_RETRY_SECONDS = 1.0

# The main process sends it to its workers when it begins to stop.
DRAIN_SIGNAL = signal.SIGUSR1


class Gateway:
    """The application of one worker: raw ASGI, with a lifespan that starts and ends the background work."""

    def __init__(
        self, settings: Settings, started: int | None = None, location: "Location | None" = None
    ) -> None:
        server = settings.server
        self._log = Log(access=server.access_log)
        self._engine = core.Engine(inline=True)
        created = wall_seconds() if started is None else started
        own, upstreams = self._configured(settings, created)
        self._location = location
        # Opened in the worker's own event loop; None until the database has answered.
        self.records: Records | None = None
        self.survey: Survey | None = None
        self._management: Starlette | None = None
        self._networks, self._proxies = settings.allow_private_networks, read_proxies(settings)
        kept = KeptUpstreams(open_handle, self._networks, self._log)
        self._stored = None if location is None else StoredDirectory(own, kept.take, created)
        self._directory = self._stored or own
        restricted = {key.name: key.models for key in settings.keys if key.models is not None}
        self._keys = Authenticator(((key.name, key.key.reveal()) for key in settings.keys), restricted)
        self._keys.grants = None if location is None else NoGrants()
        self._counter = PromptCounter(self._log)
        self._usage = Usage(
            location, server.workers, self._log, strict=server.records == "strict", days=server.usage_days
        )
        self._sharing = limits.open_shared(settings, self._usage.source, self._log)
        if self._sharing is not None:
            self._sharing.on_unseeded = self._seed
            self._usage.sharing = self._sharing
        self._observed = Observability(server, self._log)
        self._ledger = Ledger(
            self._log, self._usage.recorder, self._usage.bodies, teller=self._observed.teller
        )
        records = None if location is None else lambda: self.records
        self._observed.watch(
            Watched(self._ledger, self._usage, self._log, records, lambda: [*upstreams, *kept.all()])
        )
        self._shelf = Shelf(configured=location is not None)
        days = self._own_rules.retention_days
        self._expiry = Expiry(self._shelf, {} if days is None else {DEFAULT: days})
        self._switches = SwitchKeeper()
        # The hour in which a budget's owner was warned.
        self._drain_timeout = server.drain_timeout
        self._cuts_revoked = server.cut_revoked
        self._cutter: Cutter | None = None
        self._draining = False
        self._cut: asyncio.Task[None] | None = None
        self._watches = ClientWatches()
        parts = self._parts(settings)
        self._responses = ResponsesPipeline(parts, Memory(self._shelf))
        self.asgi = self._assemble(parts)

    def _configured(self, settings: Settings, created: int) -> tuple[SettingsDirectory, list[Upstream]]:
        """What the settings say there is."""
        limited = limits.read_upstreams(settings)
        upstreams = [
            Upstream(config, connect(settings, config), limited=limited.get(config.name))
            for config in settings.upstreams
        ]
        self._own_rules = workspace = workspaces.read(settings)
        assistant_list = assistants.read(settings, DEFAULT, created)
        # An assistant may be the default, but no upstream serves it under that name.
        is_assistant = any(assistant.name == settings.default_model for assistant in assistant_list)
        self._catalog = Catalog(
            [Source(u, u.name, u.config.models, u.config.aliases, u.config.priority) for u in upstreams],
            None if is_assistant else settings.default_model,
            created,
            workspace.default_upstream,
        )
        view = View(DEFAULT, workspace, assistant_list, {u.name: u for u in upstreams}, self._catalog)
        # A list that is set leaves the context lengths to be asked for, where a share of them is a limit.
        share = view.window_is_share
        asked = [u for u in upstreams if u.config.models is None or (share and not u.config.context_lengths)]
        self._discovery = Discovery(self._engine, asked, self._learn, self._log)
        return SettingsDirectory(view, self._discovery, settings.default_model), upstreams

    def _parts(self, settings: Settings) -> Parts:
        """What the stages of a request work with."""
        server, metrics = settings.server, self._observed.metrics
        ids = {key.name: configured_id(key.key.reveal()) for key in settings.keys}
        # Where several machines count, their store tells which budgets it does not know.
        on_new = self._seed if self._sharing is None else None
        scopes = Scopes(limits.read_keys(settings, ids), Prices(usage.read_prices(settings)), on_new)
        windows = ContextWindows(self._counter, self._log)
        return Parts(
            keys=self._keys,
            bodies=BodyReader(server.max_body_bytes, server.body_timeout, server.body_min_rate),
            scan=core.scan,
            engine=self._engine,
            directory=self._directory,
            make_recipe=core.Recipe,
            windows=windows,
            budget=RetryBudget(),
            scopes=scopes,
            limiter=Limiter(
                self._usage.limits,
                BudgetWarnings(self._log),
                self._sharing,
                on_refusal=None if metrics is None else metrics.refused,
            ),
            ledger=self._ledger,
            watches=self._watches,
            keep_alive=server.stream_keep_alive,
            chats=StoredChats(self._shelf),
            memory=ChatMemory(History(self._shelf), windows, core.Recipe, server.conversation_headers),
            thinking=Verifier(self._log, self._switches.save),
            scores=Scores(self._usage.ranks_file, self._log),
        )

    def _assemble(self, parts: Parts) -> Envelope:
        door = (self._keys, parts.bodies, self._shelf)
        stored = stored_chats.stored(*door)
        routes: list[BaseRoute] = [
            chat.route(parts, stored),
            completions.route(parts),
            embeddings.route(parts),
        ]
        routes += stored_chats.routes(stored)
        routes += responses.routes(self._responses, *door)
        routes += conversations.routes(*door)
        routes += feedback.routes(*door, lambda: self._usage.logbook, time_of_id)
        routes += models.routes(self._keys, self._directory)
        if self._observed.metrics is not None:
            routes += telemetry.routes(self._observed, lambda: self.records)
        mounted = [] if self._location is None else [Mount("/api", self._manage)]
        router = ExactRouter(
            [*routes, *mounted], redirect_slashes=False, default=self._other, lifespan=self._lifespan
        )
        return Envelope(router, self._other, self._report, self._proxies)

    async def _other(self, scope: MutableMapping[str, Any], _receive: Any, _send: Any) -> None:
        """Health checks, and every path that is no endpoint."""
        exchange = exchange_of(scope)
        path: str = scope["path"]
        if path in ("/healthz", "/readyz") and b"%" not in scope.get("raw_path", b""):
            require_method(scope["method"], "GET, HEAD")
            await self._health(exchange, path)
            return
        if path.replace("/", "").lower().startswith("v1"):
            # No key, no hint about which paths there are, however the path is written.
            await self._keys.find(exchange.head.authorization, exchange.head.other_keys)
        raise errors.unknown_path()

    async def _manage(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """The management API, once there is a database to manage."""
        if self._management is None:
            raise errors.unavailable(
                "database_unavailable", "The database does not answer. Try again shortly."
            )
        await self._management(scope, receive, send)

    async def _health(self, exchange: Exchange, path: str) -> None:
        if path == "/readyz" and self._draining:
            raise errors.not_ready("The gateway is shutting down.")
        if path == "/readyz" and not self._discovery.is_settled:
            raise errors.not_ready("The first model lists are being fetched.")
        if path == "/readyz" and self._location is not None and self.records is None:
            raise errors.not_ready("The database does not answer.")
        await exchange.answer(200, JSON_HEADERS, orjson.dumps({"status": "ok"}))

    def _learn(self, name: str, found: Models | None) -> None:
        was_fallback = self._catalog.is_fallback
        self._catalog.learn(name, found)
        if self._stored is not None:
            self._stored.learn(name, found)
        if self._catalog.is_fallback and not was_fallback:
            self._log.warning(
                "fallback_models",
                message=f"No upstream lists its models. A built-in list is shown, and {FALLBACK_DEFAULT} is "
                "used for requests that name no model. Set OPENAI_COMPATIBLE_MODEL or `models`.",
            )

    def _report(self, exchange: Exchange, error: GatewayError, where: str | None) -> None:
        """The log line of an error that no pipeline has recorded."""
        fields = {"request_id": exchange.request_id, "status": error.status, "code": error.code}
        if where is not None:
            self._observed.teller.tell_fault()
            self._log.error("internal_error", where=where, **fields)
            return
        self._observed.teller.tell_refusal(exchange.began, error)
        if error.status >= _FIRST_5XX or self._log.access:
            self._log.info("refused", **fields)

    def _seed(self, scope: Scope) -> None:
        """Budgets begin with what the records say was spent, also where the shared file is new."""
        kinds = [kind for kind, _, _ in rules_of(NO_LIMITS, scope.budget)]
        if kinds:
            self._usage.seed(scope, kinds)

    def drain(self) -> None:
        """Not ready any more; what is still open after the drain timeout ends with an error event."""
        if not self._draining:
            self._draining = True
            self._observed.drain()
            asyncio.get_running_loop().call_later(self._drain_timeout, self._cut_open_calls)

    def _cut_open_calls(self) -> None:
        self._cut = asyncio.create_task(self._engine.close())

    @asynccontextmanager
    async def _lifespan(self, _app: Any) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        # Only the main thread of a process can watch for signals; under test there may be others.
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(DRAIN_SIGNAL, self.drain)
        self._discovery.start()
        self._usage.start()
        if self._sharing is not None:
            await self._sharing.start()
        self._observed.start()
        opening = asyncio.create_task(self._open_records())
        # Listening waits a little, so that the first request need not.
        await asyncio.wait([opening], timeout=DATABASE_SECONDS)
        if opening.done():
            opening.result()
        try:
            yield
        finally:
            self._draining = True
            opening.cancel()
            await self._discovery.stop()
            self._expiry.stop()
            await self._responses.close()
            if self.survey is not None:
                await self.survey.stop()
            if self._cutter is not None:
                await self._cutter.stop()
            await self._shelf.close()
            await self._switches.close()
            if self.records is not None:
                await self.records.close()
            await self._engine.close()
            self._counter.close()
            if self._sharing is not None:
                await self._sharing.stop()
            await self._usage.stop()
            await self._observed.stop()
            self._log.close()

    async def _open_records(self) -> None:
        """Open the database, if there is one. Until it answers, its keys are a 503."""
        location, stored = self._location, self._stored
        if location is None or stored is None:
            return
        # Here, not at the top: who needs no database must not wait for this import.
        from sluicegate.keys.cut import Cutter  # noqa: PLC0415
        from sluicegate.management.app import create_management  # noqa: PLC0415
        from sluicegate.records import Records  # noqa: PLC0415
        from sluicegate.storage.group import GroupWriter  # noqa: PLC0415
        from sluicegate.upstreams.survey import Survey  # noqa: PLC0415

        while self.records is None:
            try:
                self.records = await Records.open(location)
            except StorageError as error:
                self._log.error("database_unavailable", message=str(error))
                await asyncio.sleep(DATABASE_RETRY_SECONDS)
        self.records.start()
        self._usage.retain(partial(self.records.retention, self._own_rules))
        self._management = create_management(
            self.records, self._engine, open_handle, self._log, allow_private_networks=self._networks
        )
        self._keys.grants, stored.spaces = self.records.keys, self.records.spaces
        self._switches.database = database = self.records.database
        self._shelf.open(database, GroupWriter(database))
        self._expiry.start()
        self.survey = Survey(database, self._engine, open_handle, self._networks, self._log)
        self.survey.start()
        if self._cuts_revoked:
            self._cutter = Cutter(database, self.records.freshness, self._watches.long)
            self._cutter.start()


def verify(settings: Settings) -> None:
    """Everything that `create_app` would find wrong, found before a worker starts. Raises SettingsError."""
    try:
        # Of the database's upstreams too, of which there may be none yet.
        core.Upstream("http://localhost/v1", allow_private_networks=list(settings.allow_private_networks))
    except ValueError as error:
        field, _, message = str(error).partition(": ")
        raise settings.source.error((field,), message) from None
    read_proxies(settings)
    for config in settings.upstreams:
        Upstream(config, connect(settings, config))
        check_tokenizers(settings, config)
    workspaces.read(settings)
    assistants.read(settings, DEFAULT, 0)
    limits.read_keys(settings, {key.name: key.name for key in settings.keys})
    limits.read_upstreams(settings)
    observability.check(settings)
    usage.read_prices(settings)
    limits.open_shared(settings, "", Log())


def create_app(
    settings: Settings, started: int | None = None, location: "Location | None" = None
) -> Envelope:
    """The ASGI application for these settings. Call it in the worker: it belongs to one process.

    `started` (seconds since 1970) is shown as `created` of each model: one value for all workers. `location`:
    of the database with the workspaces; None: what the settings say is all there is.
    """
    return Gateway(settings, started, location).asgi
