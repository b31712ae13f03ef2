"""`sluicegate keys`: what clients and admins show to be let in. The text of a key is shown once."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluicegate.cli.fields import Fields
from sluicegate.cli.refuse import refuse
from sluicegate.cli.show import AsJson, Yes
from sluicegate.cli.where import PlatformOption, WorkspaceOption

if TYPE_CHECKING:
    from sluicegate.config.step import Planner
    from sluicegate.keys.model import Key
    from sluicegate.storage.transaction import Change, View

app = typer.Typer(
    name="keys", help="Keys of clients and admins.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(help="Name, or id.", metavar="NAME")]
_LIST = "sluicegate keys list"


@app.command("list")
def entries(
    workspace: WorkspaceOption = None, platform: PlatformOption = False, as_json: AsJson = False
) -> None:
    """List the keys of a workspace, without their secrets."""
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import reading  # noqa: PLC0415
    from sluicegate.keys.model import CLIENT_SCOPES  # noqa: PLC0415

    found = reading(lambda view: _all(view, workspace, platform))
    if as_json:
        show.document(found)
        return
    if not found:
        show.note("No key. `sluicegate keys create NAME` makes one.")
        return
    columns = ("NAME", "SECRET", "STATE", "MAY", "MODELS", "EXPIRES", "LAST USED")
    rows = [
        (
            key.name,
            f"…{key.secrets[-1].last4}" if key.secrets[-1].last4 else "-",
            _state(key),
            # The usual ones say little, and would take half of the line.
            key.role or ("models" if key.scopes == CLIENT_SCOPES else key.scopes),
            "all" if key.models is None else key.models,
            show.day_text(key.expires_at) or "never",
            show.day_text(key.last_used_at) or "never",
        )
        for key in found
    ]
    show.table(columns, rows)


@app.command("show")
def one(
    name: Name, workspace: WorkspaceOption = None, platform: PlatformOption = False, as_json: AsJson = False
) -> None:
    """Show one key, without its secrets."""
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import reading  # noqa: PLC0415
    from sluicegate.config.plain import plain_of  # noqa: PLC0415
    from sluicegate.limits.model import Budget, Limits  # noqa: PLC0415

    found = reading(lambda view: _found(view, name, workspace, platform))
    if as_json:
        show.document(found)
        return
    pairs: list[tuple[str, Any]] = [
        ("id", found.id),
        ("name", found.name),
        ("state", _state(found)),
        ("role", found.role),
        ("scopes", found.scopes),
        ("models", "all" if found.models is None else found.models),
        ("limits", plain_of(found.limits, Limits)),
        ("budget", plain_of(found.budget, Budget)),
        ("expires", show.time_text(found.expires_at)),
        ("revoked", show.time_text(found.revoked_at)),
        ("made by", found.created_by),
        ("created", show.time_text(found.created_at)),
        ("changed", show.time_text(found.updated_at)),
    ]
    for secret in found.secrets:
        used = show.time_text(secret.last_used_at) or "never"
        end = "" if secret.not_after is None else f", valid until {show.time_text(secret.not_after)}"
        made = show.time_text(secret.created_at)
        pairs.append(("secret", f"…{secret.last4 or '-'}, made {made}, last used {used}{end}"))
    show.details(pairs)


@app.command()
def create(
    name: Name,
    fields: Fields = None,
    workspace: WorkspaceOption = None,
    platform: PlatformOption = False,
    as_json: AsJson = False,
) -> None:
    """Make a key and print its text, once.

    `keys create app expires=30d models=qwen*`

    It ends after 90 days, unless `expires` gives another end or says `never`.
    role=workspace_admin makes an admin key; with --platform it administers the whole gateway.
    """
    from sluicegate.cli.changes import planned  # noqa: PLC0415
    from sluicegate.cli.fields import entry  # noqa: PLC0415
    from sluicegate.cli.where import owner  # noqa: PLC0415
    from sluicegate.clock import wall_ns  # noqa: PLC0415
    from sluicegate.config.file import KeyEntry  # noqa: PLC0415
    from sluicegate.config.keys import plan_key  # noqa: PLC0415
    from sluicegate.keys import store  # noqa: PLC0415
    from sluicegate.keys.model import DEFAULT_LIFE_MS  # noqa: PLC0415

    usual = {"expires": wall_ns() // 1_000_000 + DEFAULT_LIFE_MS}

    async def prepare(planner: "Planner") -> None:
        where = await owner(planner.view, workspace, platform)
        if await store.find(planner.view, where, name) is not None:
            refuse(f"there is a key `{name}` already; `keys rotate` gives it a new secret")
        await plan_key(planner, where, entry(KeyEntry, fields, usual, {"name": name}), None, ())

    async def read(change: "Change") -> "Key":
        return await _found(change, name, workspace, platform)

    # The key of an operator may be the first thing there is.
    key, _, made = planned(prepare, read, begins=platform)
    _tell_secret(key, made[0].secret if made else None, as_json=as_json)


@app.command("set")
def change(
    name: Name,
    fields: Fields = None,
    workspace: WorkspaceOption = None,
    platform: PlatformOption = False,
    as_json: AsJson = False,
) -> None:
    """Change name, scopes, models, expiry, limits or budget.

    `keys set app expires=2027-01-01 limits.requests_per_minute=60`
    """
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.changes import planned, tell  # noqa: PLC0415
    from sluicegate.cli.fields import entry  # noqa: PLC0415
    from sluicegate.config.file import KeyEntry  # noqa: PLC0415
    from sluicegate.config.keys import key_values, plan_key  # noqa: PLC0415
    from sluicegate.ids import PLATFORM  # noqa: PLC0415
    from sluicegate.keys import store  # noqa: PLC0415

    target: list[Key] = []

    async def prepare(planner: "Planner") -> None:
        before = await _found(planner.view, name, workspace, platform)
        target.append(before)
        role = None if before.workspace == PLATFORM else before.role
        wanted = entry(KeyEntry, fields, key_values(store.draft_of(before), role), {})
        if wanted.secret is not None:
            refuse("`keys rotate` gives a key another secret")
        await plan_key(planner, before.workspace, wanted, before, ())

    async def read(change: "Change") -> "Key":
        return await store.get(change, target[0].workspace, target[0].id)

    key, plan, _ = planned(prepare, read)
    if as_json:
        show.document(key)
    else:
        tell(plan)


@app.command()
def rotate(  # noqa: PLR0913, PLR0917 (one parameter an option)
    name: Name,
    grace: Annotated[
        str, typer.Option(help="How long the secret before stays valid: 0s to 7d.", metavar="SPAN")
    ] = "24h",
    secret: Annotated[
        str | None,
        typer.Option(
            help="A secret of your own: env:NAME, file:PATH, or - for standard input.", metavar="REF"
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    platform: PlatformOption = False,
    as_json: AsJson = False,
) -> None:
    """Give a key a new secret and print it, once. The one before stays valid for a while."""
    from sluicegate.cli.duration import milliseconds  # noqa: PLC0415
    from sluicegate.cli.session import changing  # noqa: PLC0415
    from sluicegate.keys import store  # noqa: PLC0415

    grace_ms = milliseconds(grace, "--grace")
    own = None if secret is None else _own(secret)

    async def work(change: "Change") -> "tuple[Key, str]":
        found = await _found(change, name, workspace, platform)
        return await store.rotate(change, found.workspace, found.id, grace_ms=grace_ms, secret=own)

    key, text = changing(work)
    _tell_secret(key, None if own is not None else text, as_json=as_json)


@app.command()
def revoke(
    name: Name, workspace: WorkspaceOption = None, platform: PlatformOption = False, as_json: AsJson = False
) -> None:
    """Let a key open nothing from now on. It stays in the list."""
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import changing  # noqa: PLC0415
    from sluicegate.keys import store  # noqa: PLC0415

    async def work(change: "Change") -> "Key":
        found = await _found(change, name, workspace, platform)
        return await store.revoke(change, found.workspace, found.id)

    key = changing(work)
    if as_json:
        show.document(key)
    else:
        show.note(f"Revoked: {key.name}. No request with it succeeds from now on.")


@app.command()
def delete(
    name: Name, workspace: WorkspaceOption = None, platform: PlatformOption = False, yes: Yes = False
) -> None:
    """Take a key out of the list.

    It opens nothing any more, and its name is free.
    """
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import changing, reading  # noqa: PLC0415
    from sluicegate.keys import store  # noqa: PLC0415

    found = reading(lambda view: _found(view, name, workspace, platform))
    show.confirm(f"Delete the key {found.name}? It opens nothing from then on.", yes)
    changing(lambda change: store.remove(change, found.workspace, found.id, expected=found.version))
    show.note(f"Deleted: {found.name}.")


async def _all(view: "View", workspace: str | None, platform: bool) -> "list[Key]":
    from sluicegate.cli.where import owner  # noqa: PLC0415
    from sluicegate.config.stored import everything  # noqa: PLC0415
    from sluicegate.keys import store  # noqa: PLC0415

    where = await owner(view, workspace, platform)
    return await everything(lambda page: store.entries(view, where, page))


async def _found(view: "View", name: str, workspace: str | None, platform: bool) -> "Key":
    from sluicegate.cli.where import owner, pick  # noqa: PLC0415
    from sluicegate.keys import store  # noqa: PLC0415

    found = await store.find(view, await owner(view, workspace, platform), name)
    return found or pick("key", name, await _all(view, workspace, platform), _LIST)


def _own(ref: str) -> str:
    from pathlib import Path  # noqa: PLC0415

    from sluicegate.config.secrets import SecretError, SecretSource  # noqa: PLC0415

    if ref != "-" and not ref.startswith(("env:", "file:")):
        refuse("--secret: expected env:NAME, file:PATH or -; others can read what stands on a command line")
    try:
        return SecretSource(Path()).resolve(ref).reveal()
    except SecretError as error:
        refuse(f"--secret: {error}")


def _tell_secret(key: "Key", text: str | None, *, as_json: bool) -> None:
    """The secret alone on standard output, so that a script can take it."""
    from sluicegate.cli import show  # noqa: PLC0415

    if as_json:
        show.document({"key": key, "secret": text})
    elif text is None:
        show.note(f"The key {key.name} ({key.id}) has the secret that was given.")
    else:
        end = "never ends" if key.expires_at is None else f"ends {show.time_text(key.expires_at)}"
        show.note(f"The key {key.name} ({key.id}) {end}. Its text is shown this once:")
        typer.echo(text)


def _state(key: "Key") -> str:
    from sluicegate.clock import wall_ns  # noqa: PLC0415
    from sluicegate.http.exchange import WARN_OF_END_MS  # noqa: PLC0415

    if key.revoked_at is not None:
        return "revoked"
    left = None if key.expires_at is None else key.expires_at - wall_ns() // 1_000_000
    if left is not None and left < 0:
        return "expired"
    if left is not None and left <= WARN_OF_END_MS:
        return "ends soon"
    return "rotating" if len(key.secrets) > 1 else "valid"
