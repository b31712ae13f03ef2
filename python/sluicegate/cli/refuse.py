"""How a command ends that cannot do its work: one clear line, and exit status 2."""

from typing import NoReturn

import typer

REFUSED = 2


def refuse(message: str) -> NoReturn:
    """Print why, and leave."""
    typer.echo(f"sluicegate: {message}", err=True)
    raise typer.Exit(REFUSED)
