"""How a command answers: tables for people, JSON for programs; the rest of the talk goes to stderr."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluicegate.cli.refuse import refuse

if TYPE_CHECKING:
    from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

# Of a question: it was answered with no.
DECLINED = 1
# Nothing is cut off where no person looks at it.
_WIDE = 100_000
# Between two columns; and what each keeps of a narrow terminal before another gets all it wants.
_GAP, _LEAST = 2, 12


def document(value: Any) -> None:
    """JSON on standard output."""
    import msgspec  # noqa: PLC0415

    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Rows under a heading."""
    from rich.cells import cell_len  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    found = Table(box=None, pad_edge=False, header_style="bold")
    texts = [[Text(words(value)) for value in row] for row in rows]
    out = console()
    lines = (
        [column, *(text for row in texts for text in row[at].plain.split("\n"))]
        for at, column in enumerate(columns)
    )
    whole = _whole([max(map(cell_len, column)) for column in lines], out.width)
    for at, column in enumerate(columns):
        found.add_column(column, overflow="fold", no_wrap=at in whole)
    for row in texts:
        found.add_row(*row)
    out.print(found)


def _whole(widths: list[int], room: int) -> set[int]:
    """The columns that stay in one piece, the short ones first: a time broken in two helps nobody."""
    left = room - _GAP * (len(widths) - 1)
    whole: set[int] = set()
    for at in sorted(range(len(widths)), key=widths.__getitem__):
        others = len(widths) - len(whole) - 1
        if widths[at] + others * _LEAST > left:
            break
        whole.add(at)
        left -= widths[at]
    return whole


def details(pairs: Sequence[tuple[str, Any]]) -> None:
    """One object: what it has, line by line."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    found = Table.grid(padding=(0, 2))
    for name, value in pairs:
        found.add_row(Text(name, style="bold"), Text(words(value)))
    console().print(found)


def console() -> "Console":
    """Standard output, as wide as it takes."""
    from rich.console import Console  # noqa: PLC0415

    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=_WIDE)


def words(value: Any) -> str:
    """A value in a cell."""
    from sluicegate.cli.diff import visible  # noqa: PLC0415
    from sluicegate.toml_text import value_text  # noqa: PLC0415

    if value is None or value in ((), [], ""):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return visible(value_text(value))
    if isinstance(value, list | tuple):
        return ", ".join(words(inner) for inner in value)
    return "\n".join(visible(line) for line in str(value).split("\n"))


def time_text(millis: int | None) -> str | None:
    """A time for people, in UTC."""
    if millis is None:
        return None
    try:
        return datetime.fromtimestamp(millis / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError):
        return f"{millis} ms"


def day_text(millis: int | None) -> str | None:
    """As `time_text`, its day alone."""
    text = time_text(millis)
    return text if text is None or not text.endswith("Z") else text.partition(" ")[0]


def minute_text(millis: int | None) -> str | None:
    """As `time_text`, short enough for a table."""
    text = time_text(millis)
    return text if text is None or not text.endswith("Z") else f"{text[:-4]}Z"


def note(text: str) -> None:
    """What a person may want to know, beside the answer."""
    typer.echo(text, err=True)


def confirm(question: str, yes: bool) -> None:
    """Go on, or leave. Where nobody can be asked, --yes has to be given."""
    if yes:
        return
    if not sys.stdin.isatty():
        refuse("nobody can be asked here: give --yes")
    if not typer.confirm(question, err=True):
        raise typer.Exit(DECLINED)
