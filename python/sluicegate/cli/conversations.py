"""`sluicegate conversations`: what assistants with chat history, and clients, have kept."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from sluicegate.cli.refuse import refuse
from sluicegate.cli.show import AsJson, Yes
from sluicegate.cli.where import WorkspaceOption

if TYPE_CHECKING:
    from sluicegate.archive.model import Exported, Kind, MessageView, ThreadView, Wanted
    from sluicegate.storage.transaction import Change, View

app = typer.Typer(
    name="conversations",
    help="Conversations that assistants with chat history have kept, and those that clients have made at "
    "/v1/conversations.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class KindName(StrEnum):
    """Whose conversations."""

    THREAD = "thread"
    CONVERSATION = "conversation"


Thread = Annotated[str, typer.Argument(help="Id of a conversation.", metavar="ID")]
Key = Annotated[str | None, typer.Option(help="Only those of this key.", metavar="ID")]
Assistant = Annotated[str | None, typer.Option(help="Only those with this assistant.", metavar="ID")]
Which = Annotated[
    KindName | None, typer.Option("--kind", help="Only those of assistants, or of /v1/conversations.")
]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="So many at most.")]
_LONGEST_LINE = 200


@app.command("list")
def entries(  # noqa: PLR0913, PLR0917 (one parameter an option)
    workspace: WorkspaceOption = None,
    kind: Which = None,
    key: Key = None,
    assistant: Assistant = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List conversations, the newest first."""
    _list(workspace, _wanted(kind, key, assistant), limit, as_json)


@app.command()
def search(  # noqa: PLR0913, PLR0917 (one parameter an option)
    text: Annotated[str, typer.Argument(help="A part of what was said, without case.", metavar="TEXT")],
    workspace: WorkspaceOption = None,
    kind: Which = None,
    key: Key = None,
    assistant: Assistant = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List the conversations in which something was said."""
    _list(workspace, _wanted(kind, key, assistant, text), limit, as_json)


@app.command()
def show(thread: Thread, workspace: WorkspaceOption = None, as_json: AsJson = False) -> None:
    """Show what was said in a conversation. Each branch is a message that was edited or answered again."""
    from sluicegate.cli import show as shown  # noqa: PLC0415

    found = _exported(thread, workspace)
    if as_json:
        shown.document(found)
        return
    head = found.thread
    named = (("KIND", head.kind), ("NAME", head.name), ("KEY", head.owner), ("ASSISTANT", head.assistant))
    shown.details((*named, ("SINCE", shown.time_text(head.created_at)), ("ANSWERS", head.turns)))
    rows = [_row(message) for message in found.messages]
    shown.table(("WHEN", "BRANCH", "DEPTH", "ROLE", "TEXT"), rows)


@app.command()
def export(
    thread: Annotated[
        str | None, typer.Argument(help="Id of a conversation. [default: all]", metavar="[ID]")
    ] = None,
    workspace: WorkspaceOption = None,
    kind: Which = None,
    key: Key = None,
    assistant: Assistant = None,
) -> None:
    """Write conversations to standard output, each as one line of JSON with all that is in it."""
    import msgspec  # noqa: PLC0415

    from sluicegate.archive import store  # noqa: PLC0415
    from sluicegate.cli.session import opened  # noqa: PLC0415

    if thread is not None:
        typer.echo(msgspec.json.encode(_exported(thread, workspace)).decode())
        return

    async def work(database: Any) -> None:
        async with database.read() as view:
            where = await _where(view, workspace)
            found = await _threads(view, where, _wanted(kind, key, assistant), None)
            for one in found:
                typer.echo(msgspec.json.encode(await store.export(view, where, one.id)).decode())

    opened(work)


@app.command()
def delete(
    thread: Annotated[str | None, typer.Argument(help="Id of a conversation.", metavar="[ID]")] = None,
    workspace: WorkspaceOption = None,
    key: Key = None,
    assistant: Assistant = None,
    yes: Yes = False,
) -> None:
    """Delete a conversation, or all of a key or an assistant. What is deleted cannot be brought back."""
    from sluicegate.archive import store  # noqa: PLC0415
    from sluicegate.cli import show as shown  # noqa: PLC0415
    from sluicegate.cli.session import changing  # noqa: PLC0415
    from sluicegate.storage.errors import NotFoundError  # noqa: PLC0415

    if (thread is None) == (key is None and assistant is None):
        refuse("give the id of a conversation, or --key or --assistant for all of theirs")
    shown.confirm("Delete these conversations for good?" if thread is None else f"Delete {thread}?", yes)

    async def work(change: "Change") -> int:
        where = await _where(change, workspace)
        if thread is None:
            return await store.remove_all(change, where, _wanted(None, key, assistant))
        try:
            await store.remove(change, where, thread)
        except NotFoundError:
            _missing(thread)
        return 1

    count = changing(work)
    while thread is None and count and count % store.MOST_DELETED == 0:
        more = changing(work)
        count += more
        if not more:
            break
    shown.note(f"{count} conversation{'' if count == 1 else 's'} deleted.")


def _wanted(
    kind: KindName | None, key: str | None, assistant: str | None, text: str | None = None
) -> "Wanted":
    from sluicegate.archive.model import Wanted  # noqa: PLC0415

    chosen: Kind | None = None if kind is None else kind.value
    return Wanted(kind=chosen, owner=key, assistant=assistant, text=text)


def _list(workspace: str | None, wanted: "Wanted", limit: int, as_json: bool) -> None:
    from sluicegate.cli import show as shown  # noqa: PLC0415
    from sluicegate.cli.session import reading  # noqa: PLC0415

    async def work(view: "View") -> "list[ThreadView]":
        return await _threads(view, await _where(view, workspace), wanted, limit)

    found = reading(work)
    if as_json:
        shown.document(found)
    elif not found:
        shown.note("No conversation.")
    else:
        rows = [
            (
                one.id,
                one.kind,
                one.name,
                one.title,
                one.turns,
                one.assistant,
                one.owner,
                shown.time_text(one.updated_at),
            )
            for one in found
        ]
        shown.table(("ID", "KIND", "NAME", "BEGINS WITH", "ANSWERS", "ASSISTANT", "KEY", "LAST"), rows)


async def _threads(view: "View", where: str, wanted: "Wanted", limit: int | None) -> "list[ThreadView]":
    from sluicegate.archive import store  # noqa: PLC0415
    from sluicegate.storage.page import LARGEST, PageQuery  # noqa: PLC0415

    found: list[ThreadView] = []
    cursor = None
    while limit is None or len(found) < limit:
        size = LARGEST if limit is None else min(limit - len(found), LARGEST)
        page = await store.entries(view, where, PageQuery(cursor, size, newest_first=True), wanted)
        found += page.items
        cursor = page.next
        if cursor is None:
            break
    return found


def _exported(thread: str, workspace: str | None) -> "Exported":
    from sluicegate.archive import store  # noqa: PLC0415
    from sluicegate.cli.session import reading  # noqa: PLC0415
    from sluicegate.storage.errors import NotFoundError  # noqa: PLC0415

    async def work(view: "View") -> "Exported":
        try:
            return await store.export(view, await _where(view, workspace), thread)
        except NotFoundError:
            _missing(thread)

    return reading(work)


async def _where(view: "View", workspace: str | None) -> str:
    """The workspace; that of the settings has no row of its own."""
    from sluicegate.cli.where import owner  # noqa: PLC0415
    from sluicegate.storage.page import PageQuery  # noqa: PLC0415
    from sluicegate.workspaces import store  # noqa: PLC0415
    from sluicegate.workspaces.model import DEFAULT  # noqa: PLC0415

    none = workspace is None and not (await store.entries(view, PageQuery(limit=1))).items
    return DEFAULT if none or workspace == DEFAULT else await owner(view, workspace)


def _missing(thread: str) -> NoReturn:
    refuse(f"there is no conversation `{thread}` there. `sluicegate conversations list` shows all")


def _row(message: "MessageView") -> tuple[object, ...]:
    from sluicegate.cli import show as shown  # noqa: PLC0415
    from sluicegate.storage.codec import encode  # noqa: PLC0415

    content = message.message.get("content")
    text = content if isinstance(content, str) else encode(content) if content else ""
    if message.message.get("tool_calls"):
        text = f"{text} {encode(message.message['tool_calls'])}".strip()
    short = text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]}…"
    role = str(message.message.get("role"))
    if message.status != "complete":
        role += f" ({message.status})"
    return (shown.time_text(message.created_at), message.branch, message.depth, role, short)
