"""Run the demo upstream alone: `python -m sluicegate.demo --port 9000`."""

from typing import Annotated

import typer
from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels


def run(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 9000) -> None:
    """Serve the demo upstream until SIGINT or SIGTERM."""
    Granian(
        "sluicegate.demo.upstream:app",
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGI,
        workers=1,
        websockets=False,
        log_level=LogLevels.warning,
    ).serve()


if __name__ == "__main__":
    typer.run(run)
