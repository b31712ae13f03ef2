"""`sluicegate serve`: run the gateway on Granian."""

import errno
import ipaddress
import math
import socket
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluicegate.cli.refuse import refuse

if TYPE_CHECKING:
    from sluicegate.settings import Settings
    from sluicegate.storage.location import Location

# Open requests a worker accepts before new connections wait. The server's own default is its backlog
# (1024) divided by the workers: far too few for streams, which stay open for minutes.
BACKPRESSURE = 20_000
BACKLOG = 4096
HEADER_TIMEOUT_MS = 30_000
# Of each direction of a connection. The server's 408 KiB would be what a slow reader holds, four times
# what there is for all the rest of its stream.
HTTP1_BUFFER_BYTES = 32 * 1024


def serve(  # noqa: PLR0913, PLR0917 (typer makes options of them)
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port. [default: 8080]")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Processes. [default: 1]")] = None,
    config: Annotated[str | None, typer.Option(help="Settings file (TOML), or SLUICEGATE_CONFIG.")] = None,
    data_dir: Annotated[
        str | None,
        typer.Option(help="Use the database in this directory (SLUICEGATE_DATA_DIR); made where missing."),
    ] = None,
    access_log: Annotated[
        bool | None,
        typer.Option("--access-log/--no-access-log", help="Log every request, not only failed ones."),
    ] = None,
) -> None:
    """Run the gateway until it is stopped (Ctrl-C or SIGTERM)."""
    from sluicegate import settings as config_file  # noqa: PLC0415
    from sluicegate.app import verify  # noqa: PLC0415
    from sluicegate.storage.errors import StorageError  # noqa: PLC0415
    from sluicegate.storage.location import in_use  # noqa: PLC0415
    from sluicegate.telemetry.listener import split_address  # noqa: PLC0415

    try:
        settings = config_file.load(config)
        given = {"host": host, "port": port, "workers": workers, "access_log": access_log}
        settings = settings.with_server({k: v for k, v in given.items() if v is not None})
        location = in_use(data_dir)
        if location is None:
            require_upstreams(settings)
        verify(settings)
        has_keys = location is not None and _open_once(location)
    except (config_file.SettingsError, StorageError) as error:
        refuse(str(error))
    address = resolve(settings.server.host)
    if not has_keys:
        settings = with_key(settings, address, location)
    require_free(address, settings.server.port)
    if settings.server.metrics_address is not None:
        require_free(*split_address(settings.server.metrics_address))
    if location is not None:
        _offer_admin(location, address, settings.server.port)
    run(settings, address, location)


def _open_once(location: "Location") -> bool:
    """Make or migrate the database before a worker starts, and tell whether it has a key of a client.

    Raises StorageError.
    """
    import asyncio  # noqa: PLC0415

    from sluicegate.keys import store as keys  # noqa: PLC0415
    from sluicegate.records import Records  # noqa: PLC0415

    async def look() -> bool:
        records = await Records.open(location)
        try:
            async with records.database.read() as view:
                return await keys.has_clients(view)
        finally:
            await records.close()

    return asyncio.run(look())


def _offer_admin(location: "Location", address: str, port: int) -> None:
    """While nobody may manage the gateway: print the token for the first administrator."""
    import asyncio  # noqa: PLC0415

    from sluicegate.members.bootstrap import offer  # noqa: PLC0415
    from sluicegate.storage.database import Database  # noqa: PLC0415
    from sluicegate.storage.errors import StorageError  # noqa: PLC0415

    async def said() -> str | None:
        database = await Database.open(location)
        try:
            # From outside a token is good for nothing: 0.0.0.0 is called at a loopback address.
            here = "127.0.0.1" if ipaddress.ip_address(address).is_unspecified else address
            return await offer(database, f"http://{_shown(here, port)}")
        finally:
            await database.close()

    try:
        text = asyncio.run(said())
    except StorageError as error:
        refuse(str(error))
    if text is not None:
        typer.echo(text)


def require_upstreams(settings: "Settings") -> None:
    """A gateway to nowhere is a mistake, not a choice."""
    if not settings.upstreams:
        refuse(
            "no upstream is set: set OPENAI_COMPATIBLE_BASE_URL (and OPENAI_COMPATIBLE_API_KEY), or write "
            "[[upstreams]] into a settings file and name it with --config, or use a database with --data-dir"
        )


def resolve(host: str) -> str:
    """The numeric address of `host`."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        refuse(f"the host {host} cannot be resolved; give an address of this machine")
    return str(found[0][4][0])


def with_key(settings: "Settings", address: str, location: "Location | None" = None) -> "Settings":
    """The settings with at least one key. On a loopback address one is made, elsewhere that is refused."""
    if settings.keys:
        return settings
    if not ipaddress.ip_address(address).is_loopback:
        also = "" if location is None else ", make one in the database"
        refuse(
            f"no key is set, and {address} can be reached by others: set SLUICEGATE_API_KEYS or [[keys]]"
            f"{also}, or listen on 127.0.0.1"
        )
    if location is not None and not settings.upstreams:
        # Such a key could reach nothing: those of the database belong to their workspaces.
        typer.echo("There is no key yet: `sluicegate apply` makes workspaces, keys and upstreams.")
        return settings
    from sluicegate.keys.model import mint  # noqa: PLC0415
    from sluicegate.settings import KeyConfig, Secret  # noqa: PLC0415

    key = mint()
    typer.echo("No key is set, so one was made for this run (set SLUICEGATE_API_KEYS to choose your own):")
    typer.echo(f"  {key}")
    return settings.replace(keys=(KeyConfig(name="generated", key=Secret(key)),))


def require_free(address: str, port: int) -> None:
    """Refuse a port that is in use. The server would not: its workers share a port (SO_REUSEPORT)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections of the last run that are still closing are no reason to refuse.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            why = {
                errno.EADDRINUSE: "another program listens there",
                errno.EACCES: "ports below 1024 need rights that this user does not have",
                errno.EADDRNOTAVAIL: "this machine does not have that address",
            }.get(error.errno or 0, error.strerror)
            refuse(f"cannot listen on {_shown(address, port)}: {why}")


def run(settings: "Settings", address: str, location: "Location | None" = None) -> None:
    """Listen and serve until a signal ends it."""
    from granian.constants import HTTPModes, Interfaces, Loops, RuntimeModes  # noqa: PLC0415
    from granian.http import HTTP1Settings  # noqa: PLC0415
    from granian.log import LogLevels  # noqa: PLC0415

    # Imported here, so that workers get it with the fork.
    from sluicegate.app import create_app  # noqa: PLC0415
    from sluicegate.cli.server import CUT_SECONDS, DrainingServer  # noqa: PLC0415
    from sluicegate.cli.worker import spawn  # noqa: PLC0415
    from sluicegate.clock import wall_seconds  # noqa: PLC0415
    from sluicegate.telemetry.run_folder import remove_run_folders  # noqa: PLC0415

    server = settings.server
    granian = DrainingServer(
        "sluicegate",
        address=address,
        port=server.port,
        interface=Interfaces.ASGI,
        workers=server.workers,
        runtime_threads=1,
        # The single-threaded one writes a wake-up for each message, awake or not: 6 % of a plain request.
        runtime_mode=RuntimeModes.mt,
        loop=Loops.uvloop,
        websockets=False,
        backlog=BACKLOG,
        backpressure=BACKPRESSURE,
        # While it waits for the bytes that tell HTTP/1.1 from HTTP/2, the server has no timeout: a connection
        # that says nothing would stay open for ever.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=HEADER_TIMEOUT_MS, max_buffer_size=HTTP1_BUFFER_BYTES
        ),
        log_level=LogLevels.warning,
        log_dictconfig=_log_config(),
        # One dead worker must not end the others.
        respawn_failed_workers=True,
        workers_kill_timeout=math.ceil(server.drain_timeout) + CUT_SECONDS,
    )
    about = []
    if settings.upstreams:
        about.append(f"upstreams: {', '.join(upstream.name for upstream in settings.upstreams)}")
    if location is not None:
        about.append(f"database: {'PostgreSQL' if location.is_postgresql else location.sqlite_file}")
    if server.metrics_address is not None:
        about.append(f"metrics: http://{server.metrics_address}/metrics")
    typer.echo(" · ".join([f"Sluicegate on http://{_shown(address, server.port)}/v1", *about]))
    target = partial(create_app, settings, wall_seconds(), location)
    remove_run_folders()
    try:
        granian.serve(spawn_target=spawn, target_loader=target, wrap_loader=False)
    finally:
        remove_run_folders()


def _log_config() -> dict[str, Any]:
    """The log of the server and of other libraries goes to stderr, where ours is, and in the same form."""
    console = {"formatter": "lines", "class": "logging.StreamHandler", "stream": "ext://sys.stderr"}
    return {
        "formatters": {"lines": {"()": "sluicegate.telemetry.logs.LibraryLines"}},
        "handlers": {"console": console, "access": console},
        "root": {"handlers": ["console"], "level": "WARNING"},
    }


def _shown(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
