"""Values to stored text and back, and the check that a value is one that may be stored."""

import re
from typing import Any, TypeVar

import msgspec

from sluicegate.storage.errors import InvalidError, StorageError

T = TypeVar("T")

# Sorted, so that equal values are equal texts.
_encoder = msgspec.json.Encoder(order="sorted")
_WHERE = re.compile(r"^(.*?)(?: - at `\$\.?(.*)`)?$", re.DOTALL)


def encode(value: Any) -> str:
    """JSON text."""
    return _encoder.encode(value).decode()


def decode(text: str, kind: type[T]) -> T:
    """What `encode` wrote. Raises StorageError for a text that somebody else has written."""
    try:
        return msgspec.json.decode(text, type=kind, strict=False)
    except msgspec.MsgspecError:
        raise StorageError("A stored value cannot be read: it was not written by this program.") from None


def checked(value: T) -> T:
    """The value, if all its fields are what their types say. Raises InvalidError with the field's path.

    Python checks nothing when a struct is made: this is the one place where it happens before a value is
    stored.
    """
    kind = type(value)
    try:
        return msgspec.json.decode(_encoder.encode(value), type=kind)
    except UnicodeEncodeError:
        raise InvalidError(
            "", "a text has a surrogate character (U+D800 to U+DFFF), which is no text"
        ) from None
    except (msgspec.ValidationError, TypeError) as error:
        raise _invalid(str(error)) from None
    except (RecursionError, OverflowError, ValueError):
        raise InvalidError("", "a value is nested too deep or too large") from None


def _invalid(said: str) -> InvalidError:
    match = _WHERE.match(said)
    what, where = (match[1], match[2] or "") if match else (said, "")
    return InvalidError(where, what[:1].lower() + what[1:])
