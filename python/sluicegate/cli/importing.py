"""`sluicegate import`: the configuration of another gateway as a configuration file of this one."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from sluicegate.cli.refuse import refuse

app = typer.Typer(
    name="import",
    help="Read the configuration of another gateway.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def root() -> None:
    """A group, though it has one command so far."""


@app.command()
def litellm(
    file: Annotated[str, typer.Argument(help="A config.yaml, `-` for standard input.", metavar="FILE")],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="File to write. [default: standard output]", metavar="FILE"),
    ] = None,
    workspace: Annotated[
        str, typer.Option("--workspace", "-w", help="Id of the workspace in the file.", metavar="ID")
    ] = "default",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write the configuration file that is like a LiteLLM config.yaml, and say what is not carried over."""
    from sluicegate.cli.session import refuse_all  # noqa: PLC0415
    from sluicegate.config.litellm import convert  # noqa: PLC0415
    from sluicegate.config.reader import ConfigError  # noqa: PLC0415
    from sluicegate.config.yaml_text import read_yaml  # noqa: PLC0415

    if output is not None and Path(output).exists() and not force:
        refuse(f"{output}: the file is there already; --force writes over it")
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        imported = convert(read_yaml(raw, "standard input" if file == "-" else file), workspace)
    except OSError as error:
        refuse(f"{file}: cannot be read: {error.strerror}")
    except ConfigError as error:
        refuse_all(error.lines)
    for warning in imported.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if output is None:
        sys.stdout.write(imported.text)
        return
    try:
        Path(output).write_text(imported.text, encoding="utf-8")
    except OSError as error:
        refuse(f"{output}: cannot be written: {error.strerror}")
    typer.echo(f"Wrote {output}. Look at it with: sluicegate apply -f {output} --dry-run", err=True)
