"""`sluicegate audit`: who changed what, and whether the log was touched."""

from typing import TYPE_CHECKING, Annotated

import typer

from sluicegate.cli.show import AsJson

if TYPE_CHECKING:
    from sluicegate.audit.model import Entry
    from sluicegate.storage.transaction import View

app = typer.Typer(
    name="audit", help="The audit log: who changed what.", no_args_is_help=True, rich_markup_mode=None
)

# Of `verify`: the log was touched.
BROKEN = 1
_LONGEST_DETAIL = 400


@app.command("list")
def entries(  # noqa: PLR0913, PLR0917 (one parameter an option)
    workspace: Annotated[
        str | None, typer.Option("--workspace", "-w", help="Only this one. [default: all]", metavar="ID")
    ] = None,
    action: Annotated[str | None, typer.Option(help="Only this one, such as key.revoke.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only of this one, such as cli:root.")] = None,
    target: Annotated[str | None, typer.Option("--object", help="Only about this id.", metavar="ID")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="So many at most.")] = 50,
    details: Annotated[bool, typer.Option("--details", help="Show ids, and what has changed.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the entries, newest first."""
    from sluicegate.audit import store  # noqa: PLC0415
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import reading  # noqa: PLC0415
    from sluicegate.cli.where import require_workspace  # noqa: PLC0415
    from sluicegate.storage.page import LARGEST, PageQuery  # noqa: PLC0415

    wanted = store.AuditFilter(action=action, actor=actor, object=target)

    async def work(view: "View") -> "list[Entry]":
        if workspace is not None:
            await require_workspace(view, workspace)
        found: list[Entry] = []
        cursor = None
        while len(found) < limit:
            size = min(limit - len(found), LARGEST)
            page = await store.entries(view, workspace, PageQuery(cursor, size, newest_first=True), wanted)
            found += page.items
            cursor = page.next
            if cursor is None:
                break
        return found

    found = reading(work)
    if as_json:
        show.document(found)
    elif not found:
        show.note("No entry.")
    else:
        columns = ("NUMBER", "WHEN", "WORKSPACE", "WHO", "WHAT", "NAME")
        more = ("OBJECT", "DETAIL") if details else ()
        show.table((*columns, *more), [_row(entry, details) for entry in found])


@app.command()
def verify(as_json: AsJson = False) -> None:
    """Follow the chain of all entries. Exit status 1 if one was changed, added or removed."""
    from sluicegate.audit import store  # noqa: PLC0415
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import reading  # noqa: PLC0415

    found = reading(store.verify)
    if as_json:
        show.document(found)
    elif found.broken_at is None:
        typer.echo(f"All {found.good} entries are as they were written.")
    else:
        typer.echo(
            f"Entry {found.broken_at} is missing, or not as it was written. "
            f"The {found.good} before it are good."
        )
    if found.broken_at is not None:
        raise typer.Exit(BROKEN)


def _row(entry: "Entry", details: bool) -> tuple[object, ...]:
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.storage.codec import encode  # noqa: PLC0415

    told = entry.detail
    after = told.get("after")
    name = told.get("name") or (after.get("name") if isinstance(after, dict) else None) or told.get("login")
    when = show.minute_text(entry.at)
    row = (entry.sequence, when, entry.workspace, entry.actor, entry.action, name or entry.object)
    if not details:
        return row
    detail = encode(told) if told else ""
    return (*row, entry.object, detail if len(detail) <= _LONGEST_DETAIL else f"{detail[:_LONGEST_DETAIL]}…")
