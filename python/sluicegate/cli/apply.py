"""`sluicegate apply` and `sluicegate export`: a file for what is in the database."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluicegate.cli.refuse import refuse

if TYPE_CHECKING:
    from sluicegate.config.apply import Minted
    from sluicegate.config.file import ConfigFile
    from sluicegate.config.step import Options, Plan
    from sluicegate.storage.database import Database

# Of `--check`: there is something to change. Of a question: it was answered with no.
CHANGES = 1


def apply(  # noqa: PLR0913, PLR0917 (one parameter an option)
    file: Annotated[
        str, typer.Option("--file", "-f", help="Configuration file, `-` for standard input.", metavar="FILE")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and stop.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="As --dry-run; exit status 1 if there is something to change.")
    ] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Delete what the file does not have.")] = False,
    grace: Annotated[
        str,
        typer.Option(help="How long a key's secret stays valid that the file replaces: 30m, 24h, 7d."),
    ] = "0s",
    as_json: Annotated[bool, typer.Option("--json", help="Print changes and new keys as JSON.")] = False,
) -> None:
    """Make the database what a file says: show the difference, ask, change it all at once."""
    from sluicegate.cli.duration import milliseconds  # noqa: PLC0415
    from sluicegate.cli.session import opened, refuse_all  # noqa: PLC0415
    from sluicegate.config.apply import OutdatedError  # noqa: PLC0415
    from sluicegate.config.reader import ConfigError, read_file  # noqa: PLC0415
    from sluicegate.config.secrets import SecretSource  # noqa: PLC0415
    from sluicegate.config.step import Options  # noqa: PLC0415

    path = None if file == "-" else Path(file)
    looking = dry_run or check
    if not (yes or looking) and (as_json or path is None or not sys.stdin.isatty()):
        refuse("nobody can be asked here: look with --dry-run, then give --yes")
    try:
        config, source = read_file(path, _read(path), "standard input" if path is None else file)
        folder = Path() if path is None else path.parent
        options = Options(
            source=source, secrets=SecretSource(folder), prune=prune, grace_ms=milliseconds(grace, "--grace")
        )
        asking = not (yes or looking)
        mode = _Mode(looking, asking, as_json)
        plan, made = opened(
            lambda database: _run(database, config, options, mode), missing="pretend" if looking else "make"
        )
    except ConfigError as error:
        refuse_all(error.lines)
    except OutdatedError:
        refuse("somebody has changed the database since this difference was shown; run it again")
    if as_json:
        typer.echo(_document(plan, made, applied=not looking))
    if check and plan.steps:
        raise typer.Exit(CHANGES)


def export(
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="File to write. [default: standard output]", metavar="FILE"),
    ] = None,
    workspace: Annotated[
        list[str] | None,
        typer.Option("--workspace", "-w", help="Only this workspace; may be repeated.", metavar="ID"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write what is in the database as a file that `apply` takes. No secret is in it."""
    from sluicegate.cli.session import reading  # noqa: PLC0415
    from sluicegate.config.export import export as written  # noqa: PLC0415
    from sluicegate.config.stored import unknown  # noqa: PLC0415

    if output is not None and Path(output).exists() and not force:
        refuse(f"{output}: the file is there already; --force writes over it")
    for missing in reading(lambda view: unknown(view, workspace or ())):
        refuse(f"there is no workspace `{missing}`; `sluicegate workspaces list` shows all")
    text = reading(lambda view: written(view, workspace))
    if output is None:
        sys.stdout.write(text)
        return
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as error:
        refuse(f"{output}: cannot be written: {error.strerror}")


class _Mode:
    """What is wanted: only a look, a question before the change, or a document for a program."""

    def __init__(self, looking: bool, asking: bool, as_json: bool) -> None:
        self.looking = looking
        self.asking = asking
        self.as_json = as_json


async def _run(
    database: "Database", config: "ConfigFile", options: "Options", mode: _Mode
) -> "tuple[Plan, tuple[Minted, ...]]":
    from sluicegate.cli.session import actor  # noqa: PLC0415
    from sluicegate.config.apply import carry_out  # noqa: PLC0415
    from sluicegate.config.plan import make_plan  # noqa: PLC0415

    async with database.read() as view:
        plan = await make_plan(view, config, options)
    for warning in plan.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if not mode.as_json:
        _show(plan)
    if mode.looking or not plan.steps:
        return plan, ()
    if mode.asking and not typer.confirm("Change the database?"):
        raise typer.Exit(CHANGES)
    async with database.change(actor()) as change:
        done, made = await carry_out(change, config, options, plan)
    if not mode.as_json:
        _show_done(made)
    return done, made


def _show(plan: "Plan") -> None:
    from rich.console import Console  # noqa: PLC0415

    from sluicegate.cli.diff import show  # noqa: PLC0415

    show(plan, Console(highlight=False))
    if not plan.steps:
        typer.echo("Nothing to change.")


def _show_done(made: "tuple[Minted, ...]") -> None:
    typer.echo("Done.")
    if made:
        typer.echo("New keys. They are shown this once, and stored nowhere as text:")
    for key in made:
        typer.echo(f"  {key.workspace}/{key.name}  {key.secret}")


def _document(plan: "Plan", made: "tuple[Minted, ...]", *, applied: bool) -> str:
    """For programs: what changed, and the texts of new keys."""
    import msgspec  # noqa: PLC0415

    changes: list[dict[str, Any]] = [
        {
            "action": step.action,
            "kind": step.item.kind,
            "workspace": step.item.workspace,
            "name": step.item.name,
            "fields": [field.key for field in step.fields],
        }
        for step in plan.steps
    ]
    document = {"applied": applied, "changes": changes, "keys": made, "not_in_file": plan.unmanaged}
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def _read(path: Path | None) -> bytes:
    if path is None:
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        refuse(f"{path}: cannot be read: {error.strerror}")
