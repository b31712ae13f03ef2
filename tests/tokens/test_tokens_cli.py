"""`sluicegate tokens` as a user sees it: output, one-line errors, exit codes, pipes, a terminal."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st
from token_oracles import trained
from typer.testing import CliRunner, Result

from sluicegate.cli import app
from sluicegate.cli.tokens import _BREAK
from sluicegate.tokens import get_encoding, list_encoding_names

COMMAND = [sys.executable, "-m", "sluicegate", "tokens"]
TEXT = "Hello, wörld! 你好\n"
O200K = get_encoding("o200k_base")


def tokens(*arguments: str, given: bytes = b"") -> Result:
    """In this process: most of a process of its own would be Python's start."""
    return CliRunner().invoke(app, ["tokens", *arguments], input=given)


def output(*arguments: str, given: bytes = b"") -> str:
    done = tokens(*arguments, given=given)
    assert (done.exit_code, done.stderr_bytes) == (0, b"")
    return done.stdout_bytes.decode()


def refusal(*arguments: str, given: bytes = b"") -> str:
    """The one line of a refusal."""
    done = tokens(*arguments, given=given)
    assert (done.exit_code, done.stdout_bytes) == (2, b"")
    (line,) = done.stderr.splitlines()
    assert line.startswith("sluicegate: ")
    return line.removeprefix("sluicegate: ")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def test_count_of_one_and_of_several(file: Path, tmp_path: Path) -> None:
    number = O200K.count(TEXT)
    assert output("count", str(file)) == f"{number}\n"
    assert output("count", given=TEXT.encode()) == f"{number}\n"
    assert output("count", "-", given=b"") == "0\n"
    long = tmp_path / "long.txt"
    # Longer than one part that is read at once, and cut inside a character there.
    content = "a" + "你好 " * 400_000
    long.write_text(content)
    lines = output("count", str(file), str(long)).splitlines()
    counts = [number, O200K.count(content)]
    assert [line.split() for line in lines] == [
        [str(counts[0]), str(file)],
        [str(counts[1]), str(long)],
        [str(sum(counts)), "total"],
    ]


def test_encode_and_decode_give_the_text_back(file: Path) -> None:
    ids = output("encode", str(file))
    assert [int(word) for word in ids.split()] == O200K.encode(TEXT)
    assert output("decode", given=ids.encode()) == TEXT
    assert output("decode", given=str(O200K.encode(TEXT)).encode()) == TEXT
    assert output("decode", given=b"") == ""
    assert tokens("decode", given=str(O200K.encode("字" * 9)[:1]).encode()).exit_code == 0


@pytest.mark.parametrize(
    "text", ["word and words\n" * 100_000, "你好" * 250_000, "it's a b\tC d2 e\u0301 f " * 60_000]
)
@pytest.mark.parametrize("encoding", ["o200k_base", "r50k_base"])
def test_what_is_read_in_parts_has_the_tokens_of_the_whole(text: str, encoding: str) -> None:
    whole = " ".join(map(str, get_encoding(encoding).encode_ordinary(text)))
    given = text.encode()
    assert output("encode", "-e", encoding, given=given) == f"{whole}\n"
    assert output("decode", "-e", encoding, given=whole.encode()) == text
    # As many tokens as it has, and one less.
    count = whole.count(" ") + 1
    for most in (count, count - 1, 7, 0):
        cut = output("truncate", "-e", encoding, "-n", str(most), given=given)
        assert cut == get_encoding(encoding).truncate(text, most)


@examples(st.text(st.sampled_from("aZ '\n1.é\u0301")), st.sampled_from(list_encoding_names()))
def test_every_place_where_a_text_may_be_cut(text: str, name: str) -> None:
    encoding = get_encoding(name)
    for match in _BREAK.finditer(text):
        first, second = text[: match.end()], text[match.end() :]
        assert encoding.encode_ordinary(first) + encoding.encode_ordinary(second) == (
            encoding.encode_ordinary(text)
        )


def test_a_word_without_an_end_is_no_token() -> None:
    assert "expected token ids" in refusal("decode", given=b"1" * 3_000_000)


def test_special_tokens_only_where_asked() -> None:
    given = b"<|endoftext|>"
    assert output("encode", given=given) != "199999\n"
    assert output("encode", "--special", given=given) == "199999\n"


def test_truncate(file: Path) -> None:
    assert output("truncate", "--max", "3", str(file)) == O200K.truncate(TEXT, 3)
    assert output("truncate", "-n", "3", "--start", given=TEXT.encode()) == O200K.truncate(TEXT, 3, "start")
    assert output("truncate", "-n", "0", str(file)) == ""


def test_which_tokenizer(file: Path, tmp_path: Path) -> None:
    cl100k = str(get_encoding("cl100k_base").count(TEXT)) + "\n"
    assert output("count", "--encoding", "cl100k_base", str(file)) == cl100k
    assert output("count", "-m", "gpt-4", str(file)) == cl100k
    made: Any = trained("byte_level", ["Hello, wörld! 你好 " * 50])
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    expected = len(made.encode(TEXT, add_special_tokens=False).ids)
    assert output("count", "-t", str(path), str(file)) == f"{expected}\n"


def test_what_is_refused(file: Path, tmp_path: Path) -> None:
    assert refusal("count", "/absent/x.txt") == "/absent/x.txt: No such file or directory"
    assert refusal("count", str(tmp_path)) == f"{tmp_path}: Is a directory"
    assert "o200k_base" in refusal("count", "-e", "nope", str(file))
    assert "--encoding" in refusal("count", "-m", "llama3.2", str(file))
    assert "only one of" in refusal("count", "-m", "gpt-4", "-e", "o200k_base", str(file))
    assert refusal("count", "-t", "/absent.json", str(file)) == "/absent.json: No such file or directory"
    assert "not a tokenizer.json" in refusal("count", "-t", str(file), str(file))
    assert refusal("count", given=b"ab\xff") == "standard input: not UTF-8 text at byte 2"
    # Half a character at the end, and across the border of two parts.
    assert refusal("encode", given=b"ab\xe4\xbd") == "standard input: not UTF-8 text at byte 2"
    assert (
        refusal("count", given=b"a" * ((1 << 20) - 1) + b"\xe4a")
        == f"standard input: not UTF-8 text at byte {(1 << 20) - 1}"
    )
    assert "'x'" in refusal("decode", given=b"1 2 x")
    assert "99999999999" in refusal("decode", given=b"99999999999")
    assert "4000000" in refusal("decode", given=b"4000000")
    assert tokens("truncate", str(file)).exit_code == 2


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    file = tmp_path / "long.txt"
    file.write_text("words to encode " * 300_000)
    command = [*COMMAND, "encode", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(4)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == 0


def on_terminal(command: list[str], stdin: int | None = None) -> tuple[int, str]:
    """Exit status and what a terminal shows, without its control sequences."""
    main, side = pty.openpty()
    process = subprocess.Popen(command, stdin=side if stdin is None else stdin, stdout=side, stderr=side)
    os.close(side)
    shown = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # Linux's way to say that the other side is closed
            break
        if not part:
            break
        shown += part
        if b"Reading from the terminal" in part:
            os.write(main, b"typed words\n\x04")
    os.close(main)
    return process.wait(30), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


def test_a_bar_for_long_files_on_a_terminal(tmp_path: Path, file: Path) -> None:
    long = tmp_path / "long.txt"
    long.write_text("words to count " * 2_000_000)
    status, shown = on_terminal([*COMMAND, "count", str(long)])
    assert status == 0
    assert "MB" in shown
    assert shown.split()[-1] == str(O200K.count("words to count " * 2_000_000))
    status, shown = on_terminal([*COMMAND, "count", str(file)])
    assert (status, shown.split()) == (0, [str(O200K.count(TEXT))])


def test_a_terminal_as_input_is_told_how_to_end() -> None:
    status, shown = on_terminal([*COMMAND, "count"])
    assert status == 0
    assert "Ctrl-D" in shown
    assert shown.split()[-1] == str(O200K.count("typed words\n"))


def test_ctrl_c_ends_quietly() -> None:
    process = subprocess.Popen(
        [*COMMAND, "count"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    # When this much is taken, the command reads: it is past its imports.
    process.stdin.write(b"words " * 200_000)
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert (process.returncode, out, error) == (130, b"", b"")
