"""Where secrets come from: `env:NAME`, `file:PATH`, standard input; never from the file itself."""

import os
import sys
from collections.abc import Mapping
from getpass import getpass
from pathlib import Path

from sluicegate.settings import Secret

_MOST_BYTES = 65_536


class SecretError(Exception):
    """A secret that is not there; the text names where it was looked for, and nothing of it."""


class SecretSource:
    """Resolves references. Relative paths start from `folder`."""

    def __init__(self, folder: Path, environ: Mapping[str, str] = os.environ) -> None:
        self._folder = folder
        self._environ = environ

    def resolve(self, ref: str) -> Secret:
        """The secret itself. Raises SecretError."""
        if ref == "-":
            # What is typed at a terminal is not shown.
            typed = getpass("Secret: ") if sys.stdin.isatty() else sys.stdin.read(_MOST_BYTES)
            return _filled(typed, "standard input")
        kind, _, rest = ref.partition(":")
        if kind == "text":
            return Secret(rest)
        if kind == "env":
            if rest not in self._environ:
                raise SecretError(f"the variable {rest} is not set")
            return _filled(self._environ[rest], f"the variable {rest}")
        file = self._folder / rest
        try:
            with file.open("rb") as opened:
                raw = opened.read(_MOST_BYTES)
            text = raw.decode("utf-8")
        except OSError as error:
            raise SecretError(f"the file {file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SecretError(f"the file {file} is no UTF-8 text") from None
        return _filled(text, f"the file {file}")


def _filled(text: str, where: str) -> Secret:
    """Editors and `echo` add a line end, which belongs to no secret."""
    stripped = text.strip()
    if not stripped:
        raise SecretError(f"{where} is empty")
    if not stripped.isprintable():
        raise SecretError(f"{where} has several lines or control characters; expected one secret")
    return Secret(stripped)
