"""`sluicegate assistants`: named set-ups that clients use as models."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluicegate.cli.fields import Fields
from sluicegate.cli.refuse import refuse
from sluicegate.cli.show import AsJson, Yes
from sluicegate.cli.where import WorkspaceOption

if TYPE_CHECKING:
    from sluicegate.assistants.model import Assistant, AssistantVersion
    from sluicegate.config.step import Planner
    from sluicegate.storage.transaction import Change, View

app = typer.Typer(
    name="assistants",
    help="Assistants: named set-ups that clients use as models.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="Name, or id.", metavar="NAME")]
_LIST = "sluicegate assistants list"


@app.command("list")
def entries(workspace: WorkspaceOption = None, as_json: AsJson = False) -> None:
    """List the assistants of a workspace."""
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import reading  # noqa: PLC0415

    found = reading(lambda view: _all(view, workspace))
    if as_json:
        show.document(found)
        return
    if not found:
        show.note("No assistant. `sluicegate assistants create NAME model=UPSTREAM/MODEL` makes one.")
        return
    rows = [
        (item.name, item.spec.model, item.spec.description, item.version, show.time_text(item.updated_at))
        for item in found
    ]
    show.table(("NAME", "MODELS", "DESCRIPTION", "VERSION", "CHANGED"), rows)


@app.command("show")
def one(name: Name, workspace: WorkspaceOption = None, as_json: AsJson = False) -> None:
    """Show one assistant."""
    from sluicegate.assistants.model import AssistantSpec  # noqa: PLC0415
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import reading  # noqa: PLC0415
    from sluicegate.config.plain import plain_of  # noqa: PLC0415

    found = reading(lambda view: _found(view, name, workspace))
    if as_json:
        show.document(found)
        return
    pairs: list[tuple[str, Any]] = [("id", found.id), ("name", found.name), ("version", found.version)]
    times = [("created", show.time_text(found.created_at)), ("changed", show.time_text(found.updated_at))]
    show.details([*pairs, *plain_of(found.spec, AssistantSpec).items(), *times])


@app.command()
def create(
    name: Name, fields: Fields = None, workspace: WorkspaceOption = None, as_json: AsJson = False
) -> None:
    """Make an assistant: `assistants create coder model=local/Qwen/Qwen3 system_prompt=@prompt.md`.

    A second model=… is the fallback of the first.
    """
    from sluicegate.assistants import store  # noqa: PLC0415
    from sluicegate.cli.changes import planned  # noqa: PLC0415
    from sluicegate.cli.fields import entry  # noqa: PLC0415
    from sluicegate.cli.where import owner  # noqa: PLC0415
    from sluicegate.config.file import AssistantEntry  # noqa: PLC0415
    from sluicegate.config.plan import plan_assistant  # noqa: PLC0415

    async def prepare(planner: "Planner") -> None:
        where = await owner(planner.view, workspace)
        if await store.find(planner.view, where, name) is not None:
            refuse(f"there is an assistant `{name}` already; `assistants set` changes it")
        wanted = entry(AssistantEntry, fields, {}, {"name": name})
        await _warn_of_models(planner, where, wanted.model)
        plan_assistant(planner, where, wanted, None, ())

    async def read(change: "Change") -> "Assistant":
        return await _found(change, name, workspace)

    _answer(planned(prepare, read), as_json=as_json)


@app.command("set")
def change(
    name: Name, fields: Fields = None, workspace: WorkspaceOption = None, as_json: AsJson = False
) -> None:
    """Change some fields, as its next version: `assistants set coder temperature=0.2`."""
    from sluicegate.assistants import store  # noqa: PLC0415
    from sluicegate.assistants.model import AssistantDraft  # noqa: PLC0415
    from sluicegate.cli.changes import planned  # noqa: PLC0415
    from sluicegate.cli.fields import entry  # noqa: PLC0415
    from sluicegate.config.file import AssistantEntry  # noqa: PLC0415
    from sluicegate.config.plan import assistant_values, plan_assistant  # noqa: PLC0415

    target: list[Assistant] = []

    async def prepare(planner: "Planner") -> None:
        before = await _found(planner.view, name, workspace)
        target.append(before)
        known = assistant_values(AssistantDraft(name=before.name, spec=before.spec))
        wanted = entry(AssistantEntry, fields, known, {})
        await _warn_of_models(planner, before.workspace, wanted.model)
        plan_assistant(planner, before.workspace, wanted, before, ())

    async def read(change: "Change") -> "Assistant":
        return await store.get(change, target[0].workspace, target[0].id)

    _answer(planned(prepare, read), as_json=as_json)


@app.command()
def delete(name: Name, workspace: WorkspaceOption = None, yes: Yes = False) -> None:
    """Delete an assistant."""
    from sluicegate.assistants import store  # noqa: PLC0415
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import changing, reading  # noqa: PLC0415

    found = reading(lambda view: _found(view, name, workspace))
    show.confirm(f"Delete the assistant {found.name}?", yes)
    changing(lambda change: store.remove(change, found.workspace, found.id, expected=found.version))
    show.note(f"Deleted: {found.name}.")


@app.command()
def versions(name: Name, workspace: WorkspaceOption = None, as_json: AsJson = False) -> None:
    """Show what an assistant was, newest first: when, by whom, and what changed."""
    from sluicegate.assistants import store  # noqa: PLC0415
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import reading  # noqa: PLC0415
    from sluicegate.config.stored import everything  # noqa: PLC0415

    async def work(view: "View") -> "list[AssistantVersion]":
        found = await _found(view, name, workspace)
        return sorted(
            await everything(lambda page: store.versions(view, found.workspace, found.id, page)),
            key=lambda version: -version.version,
        )

    found = reading(work)
    if as_json:
        show.document(found)
        return
    older: list[AssistantVersion | None] = [*found[1:], None]
    rows = [
        (
            version.version,
            show.time_text(version.at),
            version.by,
            _changed(before, version),
            version.restored_from,
        )
        for version, before in zip(found, older, strict=True)
    ]
    show.table(("VERSION", "WHEN", "WHO", "CHANGED", "RESTORED FROM"), rows)


@app.command()
def rollback(
    name: Name,
    version: Annotated[int, typer.Argument(min=1, help="The version to bring again.", metavar="VERSION")],
    workspace: WorkspaceOption = None,
    as_json: AsJson = False,
) -> None:
    """Bring an older version again, as a new one."""
    from sluicegate.assistants import store  # noqa: PLC0415
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import changing  # noqa: PLC0415
    from sluicegate.storage.errors import NotFoundError  # noqa: PLC0415

    async def work(change: "Change") -> "Assistant":
        found = await _found(change, name, workspace)
        try:
            return await store.roll_back(change, found.workspace, found.id, version)
        except NotFoundError:
            refuse(f"{found.name} has no version {version}; `sluicegate assistants versions` shows all")

    restored = changing(work)
    if as_json:
        show.document(restored)
    else:
        show.note(f"{restored.name} is what it was in version {version}; this is version {restored.version}.")


async def _all(view: "View", workspace: str | None) -> "list[Assistant]":
    from sluicegate.assistants import store  # noqa: PLC0415
    from sluicegate.cli.where import owner  # noqa: PLC0415
    from sluicegate.config.stored import everything  # noqa: PLC0415

    where = await owner(view, workspace)
    return await everything(lambda page: store.entries(view, where, page))


async def _found(view: "View", name: str, workspace: str | None) -> "Assistant":
    from sluicegate.assistants import store  # noqa: PLC0415
    from sluicegate.cli.where import owner, pick  # noqa: PLC0415

    found = await store.find(view, await owner(view, workspace), name)
    return found or pick("assistant", name, await _all(view, workspace), _LIST)


async def _warn_of_models(planner: "Planner", workspace: str, models: tuple[str, ...]) -> None:
    """An upstream may come later, but it is likelier that the name is a mistake."""
    from sluicegate.config.plan import no_upstream  # noqa: PLC0415
    from sluicegate.config.stored import everything  # noqa: PLC0415
    from sluicegate.upstreams import store  # noqa: PLC0415

    own = await everything(lambda page: store.entries(planner.view, workspace, page))
    names = {found.name for found in (*own, *await store.usable(planner.view, workspace))}
    for name in dict.fromkeys(model.partition("/")[0] for model in models):
        if name not in names:
            planner.warn(("model",), no_upstream(name, names))


def _changed(before: "AssistantVersion | None", after: "AssistantVersion") -> list[str]:
    """The keys that differ from the version before."""
    if before is None:
        return ["made"]
    names = [
        name
        for name in after.spec.__struct_fields__
        if getattr(before.spec, name) != getattr(after.spec, name)
    ]
    return [*(["name"] if before.name != after.name else []), *names]


def _answer(result: "tuple[Assistant, Any, Any]", *, as_json: bool) -> None:
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.changes import tell  # noqa: PLC0415

    record, plan, _ = result
    if as_json:
        show.document(record)
    else:
        tell(plan)
