"""Workspaces of a database: each view is built from records in memory, and anew when they have changed."""

from collections.abc import Callable
from typing import Protocol

from sluicegate import errors
from sluicegate.assistants.model import Assistant
from sluicegate.chat.directory import SettingsDirectory, View
from sluicegate.keys.model import Principal
from sluicegate.models.catalog import Catalog, Source
from sluicegate.storage.errors import UnavailableError
from sluicegate.storage.recent import Recent
from sluicegate.upstreams.discover import Models
from sluicegate.upstreams.model import Upstream
from sluicegate.upstreams.record import Usable
from sluicegate.workspaces.model import DEFAULT, Workspace, WorkspaceSettings

# Views in memory: as many as the reader keeps records of workspaces.
SIZE = 2_000


class Space(Protocol):
    """A workspace with everything that its requests need; `records.Space` is one."""

    @property
    def workspace(self) -> Workspace | None: ...
    @property
    def assistants(self) -> tuple[Assistant, ...]: ...
    @property
    def upstreams(self) -> tuple[Usable, ...]: ...


class Spaces(Protocol):
    """Reads them; `records.SpaceReader` is one."""

    @property
    def mark(self) -> int | None: ...
    def peek(self, workspace: str) -> Space | None: ...
    async def find(self, workspace: str) -> Space | None: ...


class NoSpaces:
    """A database that has not answered yet."""

    mark: int | None = None

    def peek(self, workspace: str) -> Space | None:
        """Knows none."""
        del workspace
        return None

    async def find(self, workspace: str) -> Space | None:
        """Raises UnavailableError."""
        del workspace
        raise UnavailableError("The database has not answered since the start.")


Take = Callable[[Usable], Upstream | None]


class _Kept:
    """A view, the records that it was built from, and the mark at which these were last seen to be right."""

    __slots__ = ("mark", "space", "view")

    def __init__(self, space: Space, view: View) -> None:
        self.space = space
        self.view = view
        self.mark: int | None = None


class StoredDirectory:
    """The workspaces of a database, with what the settings say as a part of the one named `default`."""

    def __init__(self, own: SettingsDirectory, take: Take, created: int) -> None:
        """`own`: of the settings; `take`: the upstream of a record; `created`: seconds since 1970."""
        self.spaces: Spaces = NoSpaces()
        self._own = own
        self._take = take
        self._created = created
        self._views: Recent[str, _Kept] = Recent(SIZE)
        # What the settings' upstreams have listed.
        self._listed: dict[str, Models | None] = {}

    def view(self, principal: Principal) -> View | None:
        """The view of a workspace that was used before and has not changed."""
        mark = self.spaces.mark
        kept = None if mark is None else self._views.get(principal.workspace)
        if kept is None:
            return None
        if kept.mark != mark:
            # Something has changed somewhere. Whether it was here is asked once, not for each request.
            if self.spaces.peek(principal.workspace) is not kept.space:
                return None
            kept.mark = mark
        return kept.view

    async def load(self, principal: Principal) -> View:
        """Raises 503 where the database does not answer; the settings' own workspace needs none."""
        workspace = principal.workspace
        try:
            space = await self.spaces.find(workspace)
        except UnavailableError:
            if workspace == DEFAULT and principal.is_configured:
                return self._own.kept
            raise errors.unavailable(
                "workspace_unavailable",
                "The workspace cannot be read: the gateway's database does not answer. Try again shortly.",
            ) from None
        if space is None:
            raise errors.refused_key("workspace_deleted", "The workspace of this API key was deleted.")
        kept = self._views.get(workspace)
        if kept is not None and kept.space is space:
            return kept.view
        # The view before is still there: upstreams that have not changed keep their connections.
        view = self._build(workspace, space)
        self._views.put(workspace, _Kept(space, view))
        return view

    async def default_model(self, view: View) -> str | None:
        """Of `default` as configured; else the first model that is listed."""
        if view.id == DEFAULT:
            return await self._own.default_model(view)
        return view.catalog.default

    def learn(self, name: str, found: Models | None) -> None:
        """What an upstream of the settings lists."""
        if found is not None or name not in self._listed:
            self._listed[name] = found
        kept = self._views.get(DEFAULT)
        if kept is not None:
            kept.view.catalog.learn(name, found)

    def _build(self, workspace: str, space: Space) -> View:
        if workspace == DEFAULT:
            return self._build_default(space)
        assert space.workspace is not None  # noqa: S101 (only `default` can be without)
        settings = space.workspace.settings
        usable = [(upstream, found) for found in space.upstreams if (upstream := self._take(found))]
        catalog = Catalog(
            [_source(upstream) for upstream, _ in usable], None, self._created, settings.default_upstream
        )
        _teach(catalog, usable)
        upstreams = {upstream.name: upstream for upstream, _ in usable}
        return View(workspace, settings, space.assistants, upstreams, catalog)

    def _build_default(self, space: Space) -> View:
        """What the settings say comes first: where both have a name, theirs is meant."""
        own = self._own.kept
        if space.workspace is None:
            return own
        settings = own.settings if own.settings != WorkspaceSettings() else space.workspace.settings
        usable = [
            (upstream, found)
            for found in space.upstreams
            if found.record.name not in own.upstreams and (upstream := self._take(found))
        ]
        sources = [_source(upstream) for upstream in own.upstreams.values()]
        catalog = Catalog(
            [*sources, *(_source(upstream) for upstream, _ in usable)],
            own.catalog.configured_default,
            self._created,
            settings.default_upstream,
        )
        for name, found in self._listed.items():
            catalog.learn(name, found)
        _teach(catalog, usable)
        assistants = [a for a in space.assistants if a.name not in own.assistants]
        upstreams = {**own.upstreams, **{upstream.name: upstream for upstream, _ in usable}}
        return View(DEFAULT, settings, [*own.assistants.values(), *assistants], upstreams, catalog)


def _source(upstream: Upstream) -> Source[Upstream]:
    config = upstream.config
    return Source(upstream, upstream.name, config.models, config.aliases, config.priority)


def _teach(catalog: Catalog[Upstream], usable: "list[tuple[Upstream, Usable]]") -> None:
    """What is known of their models. Nothing yet: names are passed on, and no built-in list stands in."""
    for upstream, found in usable:
        if found.discovered.learned_at is not None:
            catalog.learn(upstream.name, {learned.model: None for learned in found.discovered.models})
