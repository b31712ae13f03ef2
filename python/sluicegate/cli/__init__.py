"""The command line. Each command imports what it needs when it runs, so that `--help` stays quick."""

from typing import Annotated

import typer

from sluicegate import __version__
from sluicegate.cli.apply import apply, export
from sluicegate.cli.ask import ask
from sluicegate.cli.assistants import app as assistants
from sluicegate.cli.audit import app as audit
from sluicegate.cli.check import check
from sluicegate.cli.conversations import app as conversations
from sluicegate.cli.demo import demo
from sluicegate.cli.importing import app as importing
from sluicegate.cli.keys import app as keys
from sluicegate.cli.logs import logs
from sluicegate.cli.members import app as members
from sluicegate.cli.migrate import migrate
from sluicegate.cli.serve import serve
from sluicegate.cli.tokens import app as tokens
from sluicegate.cli.upstreams import app as upstreams
from sluicegate.cli.usage import usage
from sluicegate.cli.workspaces import app as workspaces

# No pretty tracebacks: they show local variables, and so keys.
app = typer.Typer(
    name="sluicegate",
    help="An OpenAI-compatible gateway. Start: set OPENAI_COMPATIBLE_BASE_URL, then `sluicegate serve`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(serve)
app.command()(check)
app.command()(migrate)
app.command()(apply)
app.command()(export)
app.add_typer(importing)
for objects in (workspaces, keys, upstreams, assistants, members, conversations, audit):
    app.add_typer(objects)
app.command()(usage)
app.command()(logs)
app.command()(demo)
app.add_typer(tokens)
app.command()(ask)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sluicegate {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the program itself."""
    del version
