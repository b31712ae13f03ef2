"""Which workspace and which object a command is about: by name or id, with what to do where there is none."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, NoReturn, Protocol, TypeVar

import typer

from sluicegate.cli.refuse import refuse

if TYPE_CHECKING:
    from sluicegate.storage.transaction import View
    from sluicegate.workspaces.model import Workspace

WorkspaceOption = Annotated[
    str | None,
    typer.Option("--workspace", "-w", help="Workspace. [default: the only one there is]", metavar="ID"),
]
PlatformOption = Annotated[bool, typer.Option("--platform", help="The operator's own, of no workspace.")]

_SHOWN = 10


class Named(Protocol):
    """What a list of objects is made of."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=Named)


async def owner(view: "View", workspace: str | None, platform: bool = False) -> str:
    """The id of a workspace that is there, or of the platform."""
    from sluicegate.ids import PLATFORM  # noqa: PLC0415
    from sluicegate.storage.page import PageQuery  # noqa: PLC0415
    from sluicegate.workspaces import store  # noqa: PLC0415

    if platform:
        if workspace is not None:
            refuse("give either --workspace or --platform")
        return PLATFORM
    if workspace is not None:
        return (await require_workspace(view, workspace)).id
    page = await store.entries(view, PageQuery(limit=_SHOWN))
    ids = [space.id for space in page.items]
    if not ids:
        refuse("there is no workspace yet: `sluicegate workspaces create ID` makes one")
    if len(ids) > 1:
        refuse(f"which workspace? Give --workspace, one of: {', '.join(ids)}{', …' if page.next else ''}")
    return ids[0]


async def require_workspace(view: "View", workspace: str) -> "Workspace":
    """A workspace by its id."""
    from sluicegate.config.stored import everything  # noqa: PLC0415
    from sluicegate.workspaces import store  # noqa: PLC0415

    found = await store.find(view, workspace)
    if found is None:
        others = await everything(lambda page: store.entries(view, page))
        missing("workspace", workspace, (space.id for space in others), "sluicegate workspaces list")
    return found


def pick(kind: str, ref: str, items: Iterable[N], command: str) -> N:
    """The object of that name, else of that id."""
    found = list(items)
    matching = [item for item in found if item.name == ref] or [item for item in found if item.id == ref]
    if not matching:
        missing(kind, ref, (item.name for item in found), command)
    return matching[0]


def missing(kind: str, ref: str, names: Iterable[str], command: str) -> NoReturn:
    """There is none: say what is near, and where all are."""
    close = get_close_matches(ref, list(names), n=1)
    hint = f"Did you mean `{close[0]}`? " if close else ""
    refuse(f"there is no {kind} `{ref}`. {hint}`{command}` shows all")
