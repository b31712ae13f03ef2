"""`sluicegate ask`: one question to an OpenAI-compatible server, and its answer as it comes."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from sluicegate.client import Answer, Client

FAILED = 1
REFUSED = 2
# As shells report a program that SIGINT ended.
INTERRUPTED = 130
_DIM, _NORMAL = "\033[2m", "\033[0m"
# Written to a terminal, these could clear it or answer for the user; a model may be made to say them.
_CONTROL = {code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def ask(  # noqa: PLR0913, PLR0917 - one for each option
    question: Annotated[
        str | None, typer.Argument(help="What to ask; - or nothing reads standard input.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Model. [default: OPENAI_COMPATIBLE_MODEL, or the first that the server lists]",
        ),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="Text of the system message.")] = None,
    stream: Annotated[bool, typer.Option(help="Show the answer as it comes.")] = True,
    thinking: Annotated[
        bool, typer.Option(help="Show what the model thinks, dimmed, on standard error.")
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole answer as one JSON object.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds of silence after which to give up.")] = 30.0,
) -> None:
    """Ask the server at OPENAI_COMPATIBLE_BASE_URL, and print the answer.

    Exit status: 0 a whole answer, 1 a failed call, 2 nothing to ask or no server, 130 Ctrl-C.
    """
    from sluicegate.client import Client, ClientError, SettingsError  # noqa: PLC0415
    from sluicegate.client.settings import variable  # noqa: PLC0415

    if not variable("BASE_URL"):
        _fail("Set OPENAI_COMPATIBLE_BASE_URL to a server, such as http://127.0.0.1:8080/v1.", REFUSED)
    try:
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": _question(question)})
        with Client(model=model, timeout=timeout) as client:
            if as_json:
                _print_json(client.generate(messages))
            elif stream:
                _print_stream(client, messages, thinking=thinking)
            else:
                _print_whole(client.generate(messages), thinking=thinking)
    except SettingsError as error:
        _fail(str(error), REFUSED)
    except ClientError as error:
        _fail(str(error), FAILED)
    except BrokenPipeError:
        # The reader of a pipe has seen enough; what is buffered must not be written at exit either.
        sys.stdout = None
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        raise typer.Exit(INTERRUPTED) from None


def _question(given: str | None) -> str:
    if given is not None and given != "-":
        text = given
    elif sys.stdin is None or sys.stdin.isatty():
        _fail('There is no question: sluicegate ask "…", or give it on standard input.', REFUSED)
    else:
        text = sys.stdin.read()
    if not text.strip():
        _fail("The question is empty.", REFUSED)
    return text


def _print_stream(client: "Client", messages: list[dict[str, Any]], *, thinking: bool) -> None:
    out, thoughts = sys.stdout, _Thoughts(shown=thinking)
    terminal = out.isatty()
    ended_line = True
    try:
        with client.stream(messages) as chunks:
            for chunk in chunks:
                thoughts.show(chunk.thinking)
                text = chunk.content or chunk.refusal
                if text:
                    thoughts.end()
                    # Before the text is out: Ctrl-C may come in between.
                    ended_line = text.endswith("\n")
                    out.write(text.translate(_CONTROL) if terminal else text)
                    out.flush()
    finally:
        thoughts.end()
        if not ended_line:
            out.write("\n")
            out.flush()
    _warn_if_cut(chunks.answer)


def _print_whole(answer: "Answer[Any]", *, thinking: bool) -> None:
    thoughts = _Thoughts(shown=thinking)
    thoughts.show(answer.thinking)
    thoughts.end()
    text = (answer.content or answer.refusal).rstrip()
    sys.stdout.write(f"{text.translate(_CONTROL) if sys.stdout.isatty() else text}\n")
    sys.stdout.flush()
    _warn_if_cut(answer)


def _print_json(answer: "Answer[Any]") -> None:
    usage = answer.usage
    counts = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")
    shown = {
        "model": answer.model,
        "content": answer.content,
        "thinking": answer.thinking or None,
        "refusal": answer.refusal or None,
        "finish_reason": answer.finish_reason,
        "usage": {name: getattr(usage, name) for name in counts} if usage else None,
    }
    sys.stdout.write(json.dumps(shown, ensure_ascii=False, indent=2) + "\n")
    sys.stdout.flush()


def _warn_if_cut(answer: "Answer[Any]") -> None:
    if answer.finish_reason == "length":
        sys.stderr.write("sluicegate: the answer is cut off: it reached the server's limit of tokens\n")


class _Thoughts:
    """What the model thinks, on standard error, so that a pipe gets the answer alone."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._dim = sys.stderr.isatty()
        self._open = False

    def show(self, text: str) -> None:
        if not text or not self._shown:
            return
        start = _DIM if self._dim and not self._open else ""
        self._open = True
        sys.stderr.write(f"{start}{text.translate(_CONTROL) if self._dim else text}")
        sys.stderr.flush()

    def end(self) -> None:
        if self._open:
            self._open = False
            sys.stderr.write(f"{_NORMAL if self._dim else ''}\n\n")
            sys.stderr.flush()


def _fail(message: str, status: int) -> NoReturn:
    typer.echo(f"sluicegate: {message}", err=True)
    raise typer.Exit(status)
