"""`sluicegate demo`: the built-in demo upstream and the gateway in front of it, on this machine only."""

from typing import Annotated

import typer


def demo(
    port: Annotated[
        int | None,
        typer.Option(help="Port of the gateway; 0 takes a free one. [default: 8080, or a free one]"),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Send one streamed request, show it, and stop.")
    ] = False,
) -> None:
    """Start a demo upstream and the gateway in front of it; nothing leaves this machine."""
    from sluicegate.cli.demo_session import run  # noqa: PLC0415

    run(port, once=once)
