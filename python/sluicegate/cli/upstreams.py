"""`sluicegate upstreams`: the servers behind the gateway."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluicegate.cli.fields import Fields
from sluicegate.cli.refuse import refuse
from sluicegate.cli.show import AsJson, Yes
from sluicegate.cli.where import PlatformOption, WorkspaceOption

if TYPE_CHECKING:
    from sluicegate.config.step import Planner
    from sluicegate.storage.transaction import Change, View
    from sluicegate.upstreams.record import Discovered, UpstreamRecord

app = typer.Typer(
    name="upstreams", help="Upstreams: the servers behind it.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(help="Name, or id.", metavar="NAME")]
_LIST = "sluicegate upstreams list"


@app.command("list")
def entries(
    workspace: WorkspaceOption = None, platform: PlatformOption = False, as_json: AsJson = False
) -> None:
    """List the upstreams of a workspace, with those that the operator offers to it."""
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import reading  # noqa: PLC0415

    found = reading(lambda view: _listed(view, workspace, platform))
    if as_json:
        show.document(found)
        return
    if not found:
        show.note("No upstream. `sluicegate upstreams create NAME base_url=URL` makes one.")
        return
    columns = ("NAME", "KIND", "BASE URL", "KEY", "MODELS", "WEIGHT", "PRIORITY", "OF", "ENABLED")
    rows = [
        (
            upstream.name,
            upstream.kind,
            upstream.base_url,
            _key(upstream),
            "asked" if upstream.models is None else upstream.models,
            upstream.weight,
            upstream.priority,
            _owner(upstream),
            upstream.enabled,
        )
        for upstream in found
    ]
    show.table(columns, rows)


@app.command("show")
def one(
    name: Name, workspace: WorkspaceOption = None, platform: PlatformOption = False, as_json: AsJson = False
) -> None:
    """Show one upstream; its key and the values of its headers are never shown."""
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import reading  # noqa: PLC0415
    from sluicegate.config.plain import plain_of  # noqa: PLC0415
    from sluicegate.upstreams.record import UpstreamDraft  # noqa: PLC0415

    found = reading(lambda view: _found(view, name, workspace, platform))
    if as_json:
        show.document(found)
        return
    stored = [("key", _key(found)), ("headers", found.header_names)]
    times = [("created", show.time_text(found.created_at)), ("changed", show.time_text(found.updated_at))]
    pairs = plain_of(found, UpstreamDraft).items()
    show.details([("id", found.id), ("of", _owner(found)), *pairs, *stored, *times])


@app.command()
def create(
    name: Name,
    fields: Fields = None,
    workspace: WorkspaceOption = None,
    platform: PlatformOption = False,
    as_json: AsJson = False,
) -> None:
    """Make an upstream: `upstreams create local kind=vllm base_url=http://127.0.0.1:8000/v1`.

    Its key is api_key=env:NAME, api_key=file:PATH, or api_key=- to read it from standard input.
    """
    from sluicegate.cli.changes import planned  # noqa: PLC0415
    from sluicegate.cli.fields import entry  # noqa: PLC0415
    from sluicegate.cli.where import owner  # noqa: PLC0415
    from sluicegate.config.file import UpstreamEntry  # noqa: PLC0415
    from sluicegate.config.upstreams import plan_upstream  # noqa: PLC0415
    from sluicegate.upstreams import store  # noqa: PLC0415

    async def prepare(planner: "Planner") -> None:
        where = await owner(planner.view, workspace, platform)
        if await store.find(planner.view, where, name) is not None:
            refuse(f"there is an upstream `{name}` already; `upstreams set` changes it")
        await plan_upstream(planner, where, entry(UpstreamEntry, fields, {}, {"name": name}), None, ())

    async def read(change: "Change") -> "UpstreamRecord":
        return await _found(change, name, workspace, platform)

    _answer(planned(prepare, read), as_json=as_json)


@app.command("set")
def change(
    name: Name,
    fields: Fields = None,
    workspace: WorkspaceOption = None,
    platform: PlatformOption = False,
    as_json: AsJson = False,
) -> None:
    """Change some fields: `upstreams set local weight=3 api_key=env:LOCAL_KEY`.

    Another scheme, host or port takes the stored key away: give it again.
    """
    from sluicegate.cli.changes import planned  # noqa: PLC0415
    from sluicegate.cli.fields import entry  # noqa: PLC0415
    from sluicegate.config.file import UpstreamEntry  # noqa: PLC0415
    from sluicegate.config.upstreams import plan_upstream  # noqa: PLC0415
    from sluicegate.upstreams import store  # noqa: PLC0415

    target: list[UpstreamRecord] = []

    async def prepare(planner: "Planner") -> None:
        before = await _found(planner.view, name, workspace, platform)
        target.append(before)
        wanted = entry(UpstreamEntry, fields, _known(before), {})
        if not _keeps(before, wanted.base_url):
            # What was not given again is gone with the old origin.
            wanted = entry(UpstreamEntry, fields, _known(before, secrets=False), {})
        await plan_upstream(planner, before.workspace, wanted, before, ())

    async def read(change: "Change") -> "UpstreamRecord":
        return await store.get(change, target[0].workspace, target[0].id)

    _answer(planned(prepare, read), as_json=as_json)


@app.command()
def delete(
    name: Name, workspace: WorkspaceOption = None, platform: PlatformOption = False, yes: Yes = False
) -> None:
    """Delete an upstream and its secrets. One that an assistant names stays."""
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import changing, reading  # noqa: PLC0415
    from sluicegate.upstreams import store  # noqa: PLC0415

    found = reading(lambda view: _found(view, name, workspace, platform))
    show.confirm(f"Delete the upstream {found.name} ({found.base_url}), and its secrets?", yes)
    changing(lambda change: store.remove(change, found.workspace, found.id, expected=found.version))
    show.note(f"Deleted: {found.name}.")


@app.command()
def models(
    name: Name, workspace: WorkspaceOption = None, platform: PlatformOption = False, as_json: AsJson = False
) -> None:
    """Show what was learned of the models of an upstream, and what is set by hand."""
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import reading  # noqa: PLC0415
    from sluicegate.upstreams import store  # noqa: PLC0415

    async def work(view: "View") -> "tuple[UpstreamRecord, Discovered]":
        found = await _found(view, name, workspace, platform)
        if not found.enabled:
            refuse(f"the upstream `{found.name}` is turned off: `upstreams set {found.name} enabled=true`")
        return found, await store.discovered(view, found.workspace, found.id)

    record, learned = reading(work)
    if as_json:
        show.document(learned)
        return
    known = {model.model: model for model in learned.models}
    rows = []
    for model in sorted({*known, *(record.models or ()), *record.context_lengths}):
        told = known.get(model)
        length = record.context_lengths.get(model) or (None if told is None else told.context_length)
        rows.append(
            (
                model,
                length,
                None if told is None else told.max_output,
                None if told is None else told.abilities,
                [alias for alias, own in record.aliases.items() if own == model],
                "learned" if told is not None else "set",
            )
        )
    if rows:
        show.table(("MODEL", "CONTEXT", "MAX OUTPUT", "CAN", "ALIASES", "FROM"), rows)
    if learned.thinking:
        seen = [(o.model, o.asked, o.way, o.verdict, show.time_text(o.at)) for o in learned.thinking]
        show.table(("MODEL", "THINKING", "ASKED BY", "WAS", "SEEN"), seen)
    if learned.error is not None:
        show.note(f"Asked last {show.time_text(learned.asked_at)}, without an answer: {learned.error}")
    elif learned.asked_at is None:
        show.note("Not asked yet: a running gateway asks it in the background.")
    else:
        show.note(f"Learned {show.time_text(learned.learned_at)}.")


async def _found(view: "View", name: str, workspace: str | None, platform: bool) -> "UpstreamRecord":
    from sluicegate.cli.where import owner, pick  # noqa: PLC0415
    from sluicegate.config.stored import everything  # noqa: PLC0415
    from sluicegate.upstreams import store  # noqa: PLC0415

    where = await owner(view, workspace, platform)
    found = await store.find(view, where, name)
    if found is not None:
        return found
    return pick("upstream", name, await everything(lambda page: store.entries(view, where, page)), _LIST)


async def _listed(view: "View", workspace: str | None, platform: bool) -> "list[UpstreamRecord]":
    """The own ones, enabled or not, then those of the operator that may be used."""
    from sluicegate.cli.where import owner  # noqa: PLC0415
    from sluicegate.config.stored import everything  # noqa: PLC0415
    from sluicegate.upstreams import store  # noqa: PLC0415

    where = await owner(view, workspace, platform)
    own = await everything(lambda page: store.entries(view, where, page))
    offered = [found for found in await store.usable(view, where) if found.workspace != where]
    return own + offered


def _known(record: "UpstreamRecord", *, secrets: bool = True) -> dict[str, Any]:
    """The record as the keys of a file."""
    from sluicegate.config.file import KEPT  # noqa: PLC0415
    from sluicegate.config.plain import plain_of  # noqa: PLC0415
    from sluicegate.upstreams.record import UpstreamDraft  # noqa: PLC0415

    values = plain_of(record, UpstreamDraft)
    if secrets and record.has_key:
        values["api_key"] = KEPT
    if secrets and record.header_names:
        values["headers"] = dict.fromkeys(record.header_names, KEPT)
    return values


def _keeps(record: "UpstreamRecord", base_url: str) -> bool:
    from sluicegate.upstreams.record import origin_of  # noqa: PLC0415

    return origin_of(base_url) == record.origin


def _answer(result: "tuple[UpstreamRecord, Any, Any]", *, as_json: bool) -> None:
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.changes import tell  # noqa: PLC0415

    record, plan, _ = result
    if as_json:
        show.document(record)
    else:
        tell(plan)


def _key(record: "UpstreamRecord") -> str:
    if not record.has_key:
        return "none"
    return f"…{record.key_last4}" if record.key_last4 else "set"


def _owner(record: "UpstreamRecord") -> str:
    from sluicegate.ids import PLATFORM  # noqa: PLC0415

    return "operator" if record.workspace == PLATFORM else record.workspace
