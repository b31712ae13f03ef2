"""`sluicegate workspaces`: the tenants of the gateway."""

from typing import TYPE_CHECKING, Annotated

import typer

from sluicegate.cli.fields import Fields
from sluicegate.cli.refuse import refuse
from sluicegate.cli.show import AsJson, Yes

if TYPE_CHECKING:
    from sluicegate.config.step import Planner
    from sluicegate.storage.transaction import Change, View
    from sluicegate.workspaces.model import Workspace

app = typer.Typer(
    name="workspaces",
    help="Workspaces: the tenants of the gateway.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

WorkspaceId = Annotated[str, typer.Argument(help="Id of a workspace.", metavar="ID")]


@app.command("list")
def entries(
    name: Annotated[str, typer.Option(help="Only those with this in id or name.", metavar="PART")] = "",
    as_json: AsJson = False,
) -> None:
    """List all workspaces."""
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import reading  # noqa: PLC0415
    from sluicegate.config.plan import draft_of, workspace_values  # noqa: PLC0415
    from sluicegate.config.stored import everything  # noqa: PLC0415
    from sluicegate.workspaces import store  # noqa: PLC0415

    found = reading(lambda view: everything(lambda page: store.entries(view, page, name=name)))
    if as_json:
        show.document(found)
        return
    if not found:
        show.note("No workspace. `sluicegate workspaces create ID` makes one.")
        return
    settings = [workspace_values(space.name, draft_of(space)) for space in found]
    rows = [
        (space.id, space.name, [f"{key}={value}" for key, value in values.items()])
        for space, values in zip(found, settings, strict=True)
    ]
    show.table(("ID", "NAME", "SETTINGS"), rows)


@app.command("show")
def one(workspace: WorkspaceId, as_json: AsJson = False) -> None:
    """Show one workspace, and what it has."""
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import reading  # noqa: PLC0415
    from sluicegate.cli.where import require_workspace  # noqa: PLC0415
    from sluicegate.config.plan import draft_of, workspace_values  # noqa: PLC0415
    from sluicegate.config.stored import read  # noqa: PLC0415

    async def work(view: "View") -> "tuple[Workspace, tuple[tuple[str, list[str]], ...]]":
        record = await require_workspace(view, workspace)
        owned = (await read(view, {workspace})).workspaces[workspace]
        lists = (("upstreams", owned.upstreams), ("assistants", owned.assistants), ("keys", owned.keys))
        return record, tuple((kind, list(names)) for kind, names in lists)

    record, owned = reading(work)
    if as_json:
        show.document(record)
        return
    settings = workspace_values(record.name, draft_of(record))
    times = [("created", show.time_text(record.created_at)), ("changed", show.time_text(record.updated_at))]
    show.details([("id", record.id), ("name", record.name), *settings.items(), *owned, *times])


@app.command()
def create(workspace: WorkspaceId, fields: Fields = None, as_json: AsJson = False) -> None:
    """Make a workspace.

    `workspaces create acme context_window=40%`."""
    _write(workspace, fields, as_json=as_json, new=True)


@app.command("set")
def change(workspace: WorkspaceId, fields: Fields = None, as_json: AsJson = False) -> None:
    """Change some of its settings: `workspaces set acme max_tokens=1024`."""
    _write(workspace, fields, as_json=as_json, new=False)


@app.command()
def delete(workspace: WorkspaceId, yes: Yes = False) -> None:
    """Delete a workspace: none of its keys works from then on, and its id stays taken."""
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import changing, reading  # noqa: PLC0415
    from sluicegate.cli.where import require_workspace  # noqa: PLC0415
    from sluicegate.workspaces import store  # noqa: PLC0415

    record = reading(lambda view: require_workspace(view, workspace))
    show.confirm(f"Delete the workspace {workspace}? None of its keys works from then on.", yes)
    changing(lambda change: store.delete(change, workspace, expected=record.version))
    show.note(f"Deleted: {workspace}.")


def _write(workspace: str, fields: list[str] | None, *, as_json: bool, new: bool) -> None:
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.changes import planned, tell  # noqa: PLC0415
    from sluicegate.cli.fields import entry  # noqa: PLC0415
    from sluicegate.cli.where import require_workspace  # noqa: PLC0415
    from sluicegate.config.file import WorkspaceSettingsEntry  # noqa: PLC0415
    from sluicegate.config.plan import draft_of, plan_workspace, workspace_values  # noqa: PLC0415
    from sluicegate.workspaces import store  # noqa: PLC0415

    async def prepare(planner: "Planner") -> None:
        before = await store.find(planner.view, workspace)
        if new and before is not None:
            refuse(f"there is a workspace `{workspace}` already; `workspaces set` changes it")
        if not new:
            before = await require_workspace(planner.view, workspace)
        known = {} if before is None else workspace_values(workspace, draft_of(before))
        wanted = entry(WorkspaceSettingsEntry, fields, known, {"id": workspace})
        plan_workspace(planner, wanted, before, ())

    async def read(change: "Change") -> "Workspace":
        return await store.get(change, workspace)

    record, plan, _ = planned(prepare, read, begins=new)
    if as_json:
        show.document(record)
    else:
        tell(plan)
