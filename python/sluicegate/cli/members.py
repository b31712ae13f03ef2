"""`sluicegate members`: people, and what they may manage."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from sluicegate.cli.refuse import refuse
from sluicegate.cli.show import AsJson, Yes
from sluicegate.cli.where import PlatformOption, WorkspaceOption

if TYPE_CHECKING:
    from sluicegate.members.model import Membership, User
    from sluicegate.storage.transaction import Change, View

app = typer.Typer(
    name="members", help="People, and what they may manage.", no_args_is_help=True, rich_markup_mode=None
)

Login = Annotated[str, typer.Argument(help="Login of a person, without case.", metavar="LOGIN")]


class WorkspaceRole(StrEnum):
    """What a person can be in a workspace; --platform has one role of its own."""

    WORKSPACE_ADMIN = "workspace_admin"
    MEMBER = "member"
    VIEWER = "viewer"


@app.command("list")
def entries(
    workspace: WorkspaceOption = None, platform: PlatformOption = False, as_json: AsJson = False
) -> None:
    """List who has a role in a workspace."""
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import reading  # noqa: PLC0415
    from sluicegate.cli.where import owner  # noqa: PLC0415
    from sluicegate.config.stored import everything  # noqa: PLC0415
    from sluicegate.members import store  # noqa: PLC0415

    async def work(view: "View") -> "list[Membership]":
        where = await owner(view, workspace, platform)
        return await everything(lambda page: store.members(view, where, page))

    found = reading(work)
    if as_json:
        show.document(found)
    elif not found:
        show.note("No member. `sluicegate members add LOGIN` makes one.")
    else:
        rows = [(member.login, member.role.value, show.time_text(member.created_at)) for member in found]
        show.table(("LOGIN", "ROLE", "SINCE"), rows)


@app.command()
def users(as_json: AsJson = False) -> None:
    """List all people."""
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import reading  # noqa: PLC0415
    from sluicegate.config.stored import everything  # noqa: PLC0415
    from sluicegate.members import store  # noqa: PLC0415

    found = reading(lambda view: everything(lambda page: store.users(view, page)))
    if as_json:
        show.document(found)
    elif not found:
        show.note("No people yet. `sluicegate members add LOGIN` makes one.")
    else:
        rows = [
            (user.login, user.name, not user.disabled, user.id, show.time_text(user.created_at))
            for user in found
        ]
        show.table(("LOGIN", "NAME", "ENABLED", "ID", "SINCE"), rows)


@app.command()
def add(
    login: Login,
    role: Annotated[WorkspaceRole, typer.Option(help="What they may do.")] = WorkspaceRole.MEMBER,
    name: Annotated[str, typer.Option(help="Name of a new person.")] = "",
    workspace: WorkspaceOption = None,
    platform: PlatformOption = False,
) -> None:
    """Give a person a role in a workspace, in place of the one they had. A new login makes a new person."""
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import changing  # noqa: PLC0415
    from sluicegate.cli.where import owner  # noqa: PLC0415
    from sluicegate.members import store  # noqa: PLC0415
    from sluicegate.members.model import Role, UserDraft  # noqa: PLC0415

    async def work(change: "Change") -> "Membership":
        where = await owner(change, workspace, platform)
        user = await store.find_user(change, login)
        if user is None:
            user = await store.create_user(change, UserDraft(login=login, name=name))
        granted = Role.PLATFORM_ADMIN if platform else Role(role.value)
        return await store.grant(change, where, user.id, granted)

    made = changing(work, begins=platform)
    where = "the platform" if platform else made.workspace
    show.note(f"{made.login} is {made.role.value} of {where}.")


@app.command()
def remove(
    login: Login, workspace: WorkspaceOption = None, platform: PlatformOption = False, yes: Yes = False
) -> None:
    """Take a person's role in a workspace away."""
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import changing  # noqa: PLC0415
    from sluicegate.cli.where import owner  # noqa: PLC0415
    from sluicegate.members import store  # noqa: PLC0415
    from sluicegate.storage.errors import NotFoundError  # noqa: PLC0415

    show.confirm(f"Take the role of {login} away?", yes)

    async def work(change: "Change") -> None:
        where = await owner(change, workspace, platform)
        user = await _person(change, login)
        try:
            await store.withdraw(change, where, user.id)
        except NotFoundError:
            refuse(f"{login} has no role there; `sluicegate members list` shows who has")

    changing(work)
    show.note(f"{login} has no role there any more.")


@app.command()
def disable(login: Login) -> None:
    """Shut a person out of everything."""
    _set_disabled(login, True)


@app.command()
def enable(login: Login) -> None:
    """Let a person in again."""
    _set_disabled(login, False)


def _set_disabled(login: str, disabled: bool) -> None:
    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.session import changing  # noqa: PLC0415
    from sluicegate.members import store  # noqa: PLC0415

    async def work(change: "Change") -> None:
        user = await _person(change, login)
        await store.set_disabled(change, user.id, disabled)

    changing(work)
    show.note(f"{login} is {'shut out' if disabled else 'let in again'}.")


async def _person(view: "View", login: str) -> "User":
    from sluicegate.cli.where import missing  # noqa: PLC0415
    from sluicegate.config.stored import everything  # noqa: PLC0415
    from sluicegate.members import store  # noqa: PLC0415

    found = await store.find_user(view, login)
    if found is None:
        others = await everything(lambda page: store.users(view, page))
        missing("person", login, (user.login for user in others), "sluicegate members users")
    return found
