"""`sluicegate tokens`: count, encode, decode and truncate texts from files and standard input."""

from __future__ import annotations

import codecs
import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

from sluicegate.cli.refuse import refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from sluicegate.tokens import Encoding

T = TypeVar("T")

# Read and counted in parts of this size, so that the bar moves and memory stays small.
_PART_BYTES = 1 << 20
# Less is done before a bar could be seen.
_BAR_FROM_BYTES = 16 << 20
_INTERRUPTED = 130
# Between a letter and the blank before another one every bundled encoding begins a piece, whatever is around.
_BREAK = re.compile(r"[A-Za-z](?= [A-Za-z])")
# Searched for that, from the end of a part.
_BREAK_WITHIN = 4096
_SEPARATORS = re.compile(r"[\s,\[\]]+")

Files = Annotated[
    list[str] | None,
    typer.Argument(help="Files to read, `-` for standard input. [default: -]", metavar="FILE"),
]
EncodingName = Annotated[
    str | None, typer.Option("--encoding", "-e", help="Encoding. [default: o200k_base]", metavar="NAME")
]
ModelName = Annotated[
    str | None, typer.Option("--model", "-m", help="OpenAI model whose encoding is used.", metavar="NAME")
]
TokenizerFile = Annotated[
    str | None, typer.Option("--tokenizer", "-t", help="A tokenizer.json, for open models.", metavar="FILE")
]

app = typer.Typer(
    name="tokens",
    help="Count, encode, decode and truncate texts. Nothing leaves this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def count(
    files: Files = None,
    encoding: EncodingName = None,
    model: ModelName = None,
    tokenizer: TokenizerFile = None,
) -> None:
    """Print how many tokens each file has, and all of them together."""
    with _ended_early():
        chosen = _chosen(encoding, model, tokenizer)
        names = files or ["-"]
        counts = [_count(chosen, name) for name in names]
        if len(names) == 1:
            _write(f"{counts[0]}\n")
            return
        width = len(str(sum(counts)))
        lines = [f"{number:>{width}} {name}" for number, name in zip(counts, names, strict=True)]
        _write("\n".join([*lines, f"{sum(counts):>{width}} total"]) + "\n")


@app.command()
def encode(
    file: Annotated[str, typer.Argument(help="File to read, `-` for standard input.", metavar="FILE")] = "-",
    encoding: EncodingName = None,
    model: ModelName = None,
    tokenizer: TokenizerFile = None,
    special: Annotated[
        bool,
        typer.Option("--special", help="Special tokens in the text, such as <|endoftext|>, are themselves."),
    ] = False,
) -> None:
    """Print the token ids of a text, on one line."""
    with _ended_early():
        chosen = _chosen(encoding, model, tokenizer)
        between = ""
        for text in _one_behind(_stretches(chosen, file, bar=not sys.stdout.isatty())):
            ids = chosen.encode(text, allowed_special="all") if special else chosen.encode_ordinary(text)
            if ids:
                _write(between + " ".join(map(str, ids)))
                between = " "
        _write("\n")


@app.command()
def decode(
    file: Annotated[
        str, typer.Argument(help="File with token ids, `-` for standard input.", metavar="FILE")
    ] = "-",
    encoding: EncodingName = None,
    model: ModelName = None,
    tokenizer: TokenizerFile = None,
) -> None:
    """Print the text of token ids.

    Blanks, commas, line ends or brackets separate the ids.
    """
    with _ended_early():
        chosen = _chosen(encoding, model, tokenizer)
        for ids in _one_behind(_ids(file)):
            try:
                sys.stdout.buffer.write(chosen.decode_bytes(ids))
            except KeyError as error:
                refuse(f"{_shown(file)}: {error.args[0]}")
        sys.stdout.buffer.flush()


@app.command()
def truncate(  # noqa: PLR0913, PLR0917 (one parameter an option)
    most: Annotated[
        int, typer.Option("--max", "-n", min=0, help="The most tokens to leave.", metavar="TOKENS")
    ],
    file: Annotated[str, typer.Argument(help="File to read, `-` for standard input.", metavar="FILE")] = "-",
    encoding: EncodingName = None,
    model: ModelName = None,
    tokenizer: TokenizerFile = None,
    start: Annotated[
        bool, typer.Option("--start", help="Cut off the start and leave the end, not the other way round.")
    ] = False,
) -> None:
    """Print the part of a text that fits into so many tokens."""
    with _ended_early():
        chosen = _chosen(encoding, model, tokenizer)
        if start:
            _write(chosen.truncate("".join(_parts(file)), most, "start"))
        else:
            _write(chosen.truncate(_beginning(chosen, file, most), most))


def _chosen(encoding: str | None, model: str | None, tokenizer: str | None) -> Encoding:
    """The tokenizer that the options name."""
    from sluicegate import tokens  # noqa: PLC0415

    if sum(given is not None for given in (encoding, model, tokenizer)) > 1:
        refuse("give only one of --encoding, --model and --tokenizer")
    try:
        if tokenizer is not None:
            return tokens.load_tokenizer(tokenizer)
        if model is not None:
            return tokens.encoding_for_model(model)
        return tokens.get_encoding(encoding or "o200k_base")
    except OSError as error:
        refuse(f"{tokenizer}: {error.strerror}")
    except KeyError:
        refuse(f"no encoding is known for the model {model}; name one with --encoding, or use --tokenizer")
    except ValueError as error:
        refuse(str(error))


def _count(chosen: Encoding, name: str) -> int:
    counter = chosen.counter()
    try:
        for part in _parts(name):
            counter.feed(part)
        total = counter.total
    except ValueError as error:
        refuse(f"{_shown(name)}: {error}")
    return total


def _stretches(chosen: Encoding, name: str, *, bar: bool = True) -> Iterator[str]:
    """The text of a file in stretches whose tokens, one after another, are those of the whole text.

    The rules of a tokenizer from a file can be any, so that its text is one stretch.
    """
    waiting: list[str] = []
    for part in _parts(name, bar=bar):
        found = None if chosen.is_file else _last_break(part)
        if found is None:
            waiting.append(part)
            continue
        yield "".join([*waiting, part[:found]])
        waiting = [part[found:]]
    if waiting:
        yield "".join(waiting)


def _one_behind(items: Iterator[T]) -> Iterator[T]:
    """Each when the next is there, so that a short input that is wrong at its end leaves no output."""
    held = next(items, None)
    for item in items:
        if held is not None:
            yield held
        held = item
    if held is not None:
        yield held


def _last_break(part: str) -> int | None:
    found = None
    for match in _BREAK.finditer(part, max(0, len(part) - _BREAK_WITHIN)):
        found = match.end()
    return found


def _beginning(chosen: Encoding, name: str, most: int) -> str:
    """As much of a file as `most` tokens can need."""
    texts, tokens = [], 0
    for text in _stretches(chosen, name):
        texts.append(text)
        tokens += 0 if chosen.is_file else chosen.count(text)
        if tokens > most:
            break
    return "".join(texts)


def _ids(name: str) -> Iterator[list[int]]:
    """The token ids of a file, many at a time."""
    rest = ""
    # What is printed on a terminal meanwhile shows how far it is, and a bar would be in its way.
    for part in _parts(name, bar=not sys.stdout.isatty()):
        *words, rest = _SEPARATORS.split(rest + part)
        yield _checked(name, words)
        if len(rest) > len(str(1 << 32)):
            _checked(name, [rest])
    yield _checked(name, [rest])


def _checked(name: str, words: list[str]) -> list[int]:
    words = [word for word in words if word]
    for word in words:
        if not (word.isascii() and word.isdigit() and len(word) <= len(str(1 << 32)) and int(word) < 1 << 32):
            refuse(f"{_shown(name)}: expected token ids, whole numbers from 0 on, not {word[:40]!r}")
    return [int(word) for word in words]


def _parts(name: str, *, bar: bool = True) -> Iterator[str]:
    """The text of a file in parts, with a bar on the terminal where it is long."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    done = 0
    try:
        with _opened(name) as (file, size), _bar(name, size, shown=bar) as advance:
            full = True
            # A short part is the last one; to ask a terminal again would take a second Ctrl-D.
            while full and (part := file.read(_PART_BYTES)):
                full = len(part) == _PART_BYTES
                # Counted from the start of the part: bytes that are kept for the next one are before it.
                kept = len(decoder.getstate()[0])
                try:
                    yield decoder.decode(part)
                except UnicodeDecodeError as error:
                    _refuse_bytes(name, done - kept + error.start)
                done += len(part)
                advance(len(part))
            kept = len(decoder.getstate()[0])
            try:
                decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                _refuse_bytes(name, done - kept)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        refuse(f"{_shown(name)}: {error.strerror}")


def _refuse_bytes(name: str, at: int) -> NoReturn:
    refuse(f"{_shown(name)}: not UTF-8 text at byte {at}")


@contextmanager
def _opened(name: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """The file and its size; standard input has none."""
    if name == "-":
        if sys.stdin.isatty():
            typer.echo("Reading from the terminal; end with Ctrl-D on a line of its own.", err=True)
        yield sys.stdin.buffer, None
    else:
        with Path(name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            yield file, size or None


@contextmanager
def _bar(name: str, size: int | None, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """How to say that bytes are done; on a terminal a bar shows it where the input is long."""
    if not shown or not sys.stderr.isatty() or (size is not None and size < _BAR_FROM_BYTES):
        yield lambda _bytes: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(_shown(PurePath(name).name), total=size)
        yield lambda count: progress.advance(task, count)


def _write(text: str) -> None:
    sys.stdout.buffer.write(text.encode("utf-8", "surrogatepass"))
    sys.stdout.buffer.flush()


@contextmanager
def _ended_early() -> Iterator[None]:
    """A reader that has seen enough (`| head`) is no error, and Ctrl-C no traceback."""
    try:
        yield
    except BrokenPipeError:
        # Python would complain once more when it closes the pipe at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None


def _shown(name: str) -> str:
    return "standard input" if name == "-" else name
