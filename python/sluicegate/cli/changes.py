"""A change of one object, planned and carried out as a configuration file's would be."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from sluicegate.cli.session import changing, refuse_all

if TYPE_CHECKING:
    from sluicegate.config.apply import Minted
    from sluicegate.config.step import Plan, Planner
    from sluicegate.storage.transaction import Change

T = TypeVar("T")


def planned(
    prepare: "Callable[[Planner], Awaitable[None]]",
    read: "Callable[[Change], Awaitable[T]]",
    *,
    begins: bool = False,
) -> "tuple[T, Plan, tuple[Minted, ...]]":
    """Let `prepare` plan, do it, and `read` the object again, all in one change; `begins`: see `changing`."""
    from pathlib import Path  # noqa: PLC0415

    from sluicegate.config.apply import run  # noqa: PLC0415
    from sluicegate.config.reader import ConfigError  # noqa: PLC0415
    from sluicegate.config.secrets import SecretSource  # noqa: PLC0415
    from sluicegate.config.step import Options, Planner  # noqa: PLC0415
    from sluicegate.settings import Source  # noqa: PLC0415

    options = Options(source=Source(), secrets=SecretSource(Path()))

    async def work(change: "Change") -> "tuple[T, Plan, tuple[Minted, ...]]":
        planner = Planner(change, options)
        await prepare(planner)
        plan = planner.finish()
        made = await run(change, plan, options.source)
        return await read(change), plan, made

    try:
        return changing(work, begins=begins)
    except ConfigError as error:
        refuse_all(error.lines)


def tell(plan: "Plan") -> None:
    """What was changed, for people."""
    from sluicegate.cli.diff import show_steps  # noqa: PLC0415
    from sluicegate.cli.show import console, note  # noqa: PLC0415

    for warning in plan.warnings:
        note(f"warning: {warning}")
    if not plan.steps:
        note("Nothing to change.")
    show_steps(plan, console())
