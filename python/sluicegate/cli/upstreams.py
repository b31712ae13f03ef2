"""`sluicegate upstreams`: the servers behind the gateway."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluicegate.cli.fields import Fields
from sluicegate.cli.refuse import refuse
from sluicegate.cli.show import AsJson, Yes
from sluicegate.cli.where import PlatformOption, WorkspaceOption

if TYPE_CHECKING:
    from sluicegate.config.step import Planner
    from sluicegate.storage.database import Database
    from sluicegate.storage.transaction import Change, View
    from sluicegate.upstreams.record import Learned, UpstreamRecord

app = typer.Typer(
    name="upstreams", help="Upstreams: the servers behind it.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(help="Name, or id.", metavar="NAME")]
_LIST = "sluicegate upstreams list"
# Of `test`: the server gave no list of models.
NO_ANSWER = 1
# What to look at, by the cause.
_HINTS = {
    "upstream_connect_error": "nothing listens there: is it running, is base_url right?",
    "upstream_dns_error": "its host has no address",
    "upstream_address_forbidden": "its address is private or reserved: see allow_private_networks",
    "upstream_tls_error": "its certificate is not accepted",
    "upstream_timeout": "it does not answer in time",
    "upstream_auth_error": "it refuses the key: set api_key",
    "model_not_found": "there is no such path: base_url usually ends in /v1",
    "upstream_redirect": "it redirects: set base_url to the final address",
    "upstream_empty": "its list is empty: is a model loaded?",
    "upstream_invalid_answer": "this is not an OpenAI-compatible server, or base_url is not its API",
    "upstream_bad_content_type": "this is not an OpenAI-compatible server, or base_url is not its API",
}


@app.command("list")
def entries(
    workspace: WorkspaceOption = None, platform: PlatformOption = False, as_json: AsJson = False
) -> None:
    """List the upstreams of a workspace, and those offered to it."""
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import reading  # noqa: PLC0415

    found = reading(lambda view: _listed(view, workspace, platform))
    if as_json:
        show.document([upstream for upstream, _ in found])
        return
    if not found:
        show.note("No upstream. `sluicegate upstreams create NAME base_url=URL` makes one.")
        return
    columns = ("NAME", "OF", "KIND", "BASE URL", "KEY", "MODELS", "STATE")
    rows = [
        (
            upstream.name,
            _owner(upstream),
            upstream.kind,
            upstream.base_url,
            _key(upstream),
            len(learned.models) if upstream.models is None else len(upstream.models),
            learned.state if upstream.enabled else "disabled",
        )
        for upstream, learned in found
    ]
    show.table(columns, rows)


@app.command("show")
def one(
    name: Name, workspace: WorkspaceOption = None, platform: PlatformOption = False, as_json: AsJson = False
) -> None:
    """Show one upstream, without its secrets."""
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
    """Make an upstream.

    `upstreams create local kind=vllm base_url=http://127.0.0.1:8000/v1`

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

    # An upstream of the operator may be the first thing there is.
    _answer(planned(prepare, read, begins=platform), as_json=as_json)


@app.command("set")
def change(
    name: Name,
    fields: Fields = None,
    workspace: WorkspaceOption = None,
    platform: PlatformOption = False,
    as_json: AsJson = False,
) -> None:
    """Change some fields of an upstream.

    `upstreams set local weight=3 api_key=env:LOCAL_KEY`

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
    """Show whether an upstream answers, and its models.

    What was learned of them when it was asked last, and what is set by hand.
    """
    from sluicegate.cli.session import reading  # noqa: PLC0415
    from sluicegate.upstreams import store  # noqa: PLC0415
    from sluicegate.upstreams.record import learned  # noqa: PLC0415

    async def work(view: "View") -> "tuple[UpstreamRecord, Learned]":
        found = await _found(view, name, workspace, platform)
        return found, learned(await store.own_discovered(view, found.workspace, found.id))

    _tell_learned(*reading(work), as_json=as_json)


@app.command()
def discover(
    name: Name, workspace: WorkspaceOption = None, platform: PlatformOption = False, as_json: AsJson = False
) -> None:
    """Ask an upstream now what it serves, keep its answer and show it. It costs no tokens."""
    _tell_learned(*_ask_now(name, workspace, platform, kept=True), as_json=as_json)


@app.command()
def test(
    name: Name, workspace: WorkspaceOption = None, platform: PlatformOption = False, as_json: AsJson = False
) -> None:
    """Ask an upstream now what it serves, and keep nothing. Exit status 1 if it does not say."""
    record, told = _ask_now(name, workspace, platform, kept=False)
    _tell_learned(record, told, as_json=as_json)
    if told.error is not None:
        raise typer.Exit(NO_ANSWER)


def _ask_now(
    name: str, workspace: str | None, platform: bool, *, kept: bool
) -> "tuple[UpstreamRecord, Learned]":
    """As a gateway with the settings and variables of this command would."""
    from sluicegate import settings  # noqa: PLC0415
    from sluicegate.cli.session import actor, opened  # noqa: PLC0415
    from sluicegate.clock import wall_ns  # noqa: PLC0415
    from sluicegate.engine import Engine  # noqa: PLC0415
    from sluicegate.ids import PLATFORM  # noqa: PLC0415
    from sluicegate.upstreams import store  # noqa: PLC0415
    from sluicegate.upstreams.ask import ask  # noqa: PLC0415
    from sluicegate.upstreams.connect import open_handle  # noqa: PLC0415
    from sluicegate.upstreams.keep import keep  # noqa: PLC0415
    from sluicegate.upstreams.kept import config_of  # noqa: PLC0415
    from sluicegate.upstreams.record import Discovered, learned  # noqa: PLC0415

    try:
        networks = settings.load().allow_private_networks
    except settings.SettingsError as error:
        refuse(str(error))

    async def work(database: "Database") -> "tuple[UpstreamRecord, Learned]":
        async with database.read() as view:
            record = await _found(view, name, workspace, platform)
            credentials = await store.own_credentials(view, record.workspace, record.id)
            before = await store.own_discovered(view, record.workspace, record.id)
        config, engine = config_of(record, credentials, networks), Engine()
        try:
            answer = await ask(engine, open_handle, config, trusted=record.workspace == PLATFORM)
        finally:
            await engine.close()
        now = wall_ns() // 1_000_000
        if not kept:
            since = now if answer.models is not None else None
            told = Discovered(models=answer.models or (), learned_at=since, asked_at=now, error=answer.error)
            return record, learned(told)
        await keep(database, actor(), (record.workspace, record.id), before, answer)
        async with database.read() as view:
            return record, learned(await store.own_discovered(view, record.workspace, record.id))

    return opened(work)


def _tell_learned(record: "UpstreamRecord", learned: "Learned", *, as_json: bool) -> None:
    from sluicegate.cli import show  # noqa: PLC0415

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
    if not record.enabled:
        show.note(f"It is turned off: `sluicegate upstreams set {record.name} enabled=true`.")
    at = show.time_text(learned.asked_at)
    if learned.error is not None:
        what = "Other upstreams are asked first" if learned.state == "out" else "It is used all the same"
        show.note(f"Asked {at}, without a list of models: {learned.error}{_hint(learned.error)}.")
        show.note(f"{what}, until it answers.")
    elif learned.asked_at is None:
        show.note("Not asked yet: a running gateway does so by itself, `sluicegate upstreams discover` now.")
    else:
        show.note(f"It answered {at}.")


def _hint(cause: str) -> str:
    return f" ({_HINTS[cause]})" if cause in _HINTS else ""


async def _found(view: "View", name: str, workspace: str | None, platform: bool) -> "UpstreamRecord":
    from sluicegate.cli.where import owner, pick  # noqa: PLC0415
    from sluicegate.config.stored import everything  # noqa: PLC0415
    from sluicegate.upstreams import store  # noqa: PLC0415

    where = await owner(view, workspace, platform)
    found = await store.find(view, where, name)
    if found is not None:
        return found
    return pick("upstream", name, await everything(lambda page: store.entries(view, where, page)), _LIST)


async def _listed(
    view: "View", workspace: str | None, platform: bool
) -> "list[tuple[UpstreamRecord, Learned]]":
    """The own ones, enabled or not, then those of the operator that may be used."""
    from sluicegate.cli.where import owner  # noqa: PLC0415
    from sluicegate.config.stored import everything  # noqa: PLC0415
    from sluicegate.upstreams import store  # noqa: PLC0415
    from sluicegate.upstreams.record import learned  # noqa: PLC0415

    where = await owner(view, workspace, platform)
    own = await everything(lambda page: store.entries(view, where, page))
    offered = [found for found in await store.usable(view, where) if found.workspace != where]
    return [
        (found, learned(await store.own_discovered(view, found.workspace, found.id)))
        for found in own + offered
    ]


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
