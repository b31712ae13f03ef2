"""Failures of the database as our own errors: without SQL, values or the driver's text."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from sluicegate.storage.errors import NameTakenError, StorageError, UnavailableError


@contextmanager
def translated() -> Iterator[None]:
    """Turn SQLAlchemy's exceptions into StorageErrors; everything else passes."""
    try:
        yield
    except StorageError:
        raise
    except exc.IntegrityError:
        # Names are checked before, under the same lock: this is the net below.
        raise NameTakenError("object", "") from None
    except exc.TimeoutError:
        raise UnavailableError("All connections to the database are busy. Try again shortly.") from None
    except exc.DBAPIError as error:
        raise UnavailableError(_reason(error)) from None
    except OSError as error:
        raise UnavailableError(
            f"The database cannot be reached: {error.strerror or 'no connection'}."
        ) from None


def _reason(error: exc.DBAPIError) -> str:
    """What an operator can act on: the driver's text is searched for known words, and never repeated."""
    said = str(error.orig).lower()
    for words, reason in _REASONS:
        if any(word in said for word in words):
            return reason
    if error.connection_invalidated or isinstance(error, exc.OperationalError | exc.InterfaceError):
        return "The database cannot be reached, or has closed the connection. Check that it runs."
    return "The database refused a statement: its schema is not the one that this program made."


_REASONS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("database is locked", "database table is locked", "lock timeout", "deadlock"),
        "The database is locked by another transaction. Try again shortly.",
    ),
    (("readonly database", "read-only"), "The database is read-only: check the rights of its files."),
    (("disk is full", "database or disk", "no space left", "disk full"), "The database's disk is full."),
    (
        ("not a database", "malformed"),
        "The database file is damaged: stop the gateway and restore a backup.",
    ),
    (("unable to open",), "The database file cannot be opened: check that it exists and its rights."),
    (
        ("password authentication failed", "no password supplied", 'role "'),
        "The database refused user or password: check SLUICEGATE_DATABASE_URL.",
    ),
    (("statement timeout", "canceling statement"), "The database took too long."),
)
