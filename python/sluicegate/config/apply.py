"""A plan carried out in one transaction: all of it, or nothing."""

from msgspec import Struct

from sluicegate.config.file import ConfigFile
from sluicegate.config.plan import make_plan
from sluicegate.config.reader import ConfigError
from sluicegate.config.step import Options, Plan, Step
from sluicegate.ids import PLATFORM
from sluicegate.settings import Source
from sluicegate.storage.errors import InvalidError, StorageError, UnavailableError
from sluicegate.storage.transaction import Change


class Minted(Struct, frozen=True):
    """A key that was made, and its text, which is never shown again."""

    workspace: str
    name: str
    secret: str


class OutdatedError(Exception):
    """The database has changed since the plan was shown."""


async def carry_out(
    change: Change, file: ConfigFile, options: Options, shown: Plan | None
) -> tuple[Plan, tuple[Minted, ...]]:
    """Compare once more, under the lock of the change, and do it. `shown`: what somebody has agreed to.

    Raises ConfigError, OutdatedError, UnavailableError: nothing is changed then.
    """
    plan = await make_plan(change, file, options)
    if shown is not None and not plan.same(shown):
        raise OutdatedError
    return plan, await run(change, plan, options.source)


async def run(change: Change, plan: Plan, source: Source) -> tuple[Minted, ...]:
    """Do the steps. Raises ConfigError for what a store refuses, and UnavailableError."""
    made = []
    for step in plan.steps:
        try:
            secret = await step.run(change)
        except UnavailableError:
            raise
        except StorageError as error:
            raise ConfigError(_located(source, step, error)) from None
        if secret is not None:
            made.append(Minted(step.item.workspace, step.item.name, secret))
    return tuple(made)


def _located(source: Source, step: Step, error: StorageError) -> str:
    """What a store refused, at the key that it names, else at the object."""
    if isinstance(error, InvalidError) and error.field and step.path:
        # A record holds settings and content a level deeper than the file.
        field = error.field.removeprefix("settings.").removeprefix("spec.").partition("[")[0]
        return str(source.error((*step.path, *field.split(".")), error.message))
    owner = "" if step.item.kind == "workspace" else f" of {step.item.workspace}"
    if step.item.workspace == PLATFORM:
        owner = " of the operator"
    message = f"{step.item.kind} `{step.item.name}`{owner}: {error}"
    return str(source.error(step.path, message)) if step.path else message
