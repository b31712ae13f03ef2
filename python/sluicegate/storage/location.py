"""Where the data is: the data directory, the database's URL and the files beside it."""

import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from sluicegate.settings import Secret
from sluicegate.storage.errors import UnavailableError

_POSTGRES = ("postgresql://", "postgres://")
_DIRECTORY_MODE = 0o700


class Location(Struct, frozen=True, kw_only=True):
    """Everything that has to be known before the database can be opened."""

    data_dir: Path
    # None: the SQLite file in the data directory. It may hold a password.
    database_url: Secret | None = None
    # The master key itself or `file:PATH`; None: `master.key` in the data directory.
    master_key: Secret | None = None

    @property
    def is_postgresql(self) -> bool:
        """Whether the database is a server."""
        return self.database_url is not None

    @property
    def sqlite_file(self) -> Path:
        """The database of a machine alone."""
        return self.data_dir / "sluicegate.db"

    @property
    def shared_file(self) -> Path:
        """What the processes of this machine have mapped; the number is that of its layout."""
        return self.data_dir / "shared-1.map"

    @property
    def master_key_file(self) -> Path:
        """Made at the first start where no key is given."""
        return self.data_dir / "master.key"

    def make_data_dir(self) -> None:
        """Make the directory, for its owner alone. Raises UnavailableError."""
        try:
            self.data_dir.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        except OSError as error:
            raise UnavailableError(
                f"The data directory {self.data_dir} cannot be made: {error.strerror}. "
                "Set SLUICEGATE_DATA_DIR to one that can be written."
            ) from None


def from_environment(environ: Mapping[str, str] = os.environ) -> Location:
    """`SLUICEGATE_DATA_DIR`, `SLUICEGATE_DATABASE_URL`, `SLUICEGATE_MASTER_KEY`.

    Raises UnavailableError for a URL that is not of PostgreSQL.
    """
    given = environ.get("SLUICEGATE_DATA_DIR", "").strip()
    url = environ.get("SLUICEGATE_DATABASE_URL", "").strip()
    key = environ.get("SLUICEGATE_MASTER_KEY", "").strip()
    if url and not url.startswith(_POSTGRES):
        raise UnavailableError(
            "SLUICEGATE_DATABASE_URL: expected postgresql://user:password@host/database. "
            "Unset it for the SQLite file in SLUICEGATE_DATA_DIR."
        )
    return Location(
        data_dir=Path(given).absolute() if given else _default_dir(environ),
        database_url=Secret(url) if url else None,
        master_key=Secret(key) if key else None,
    )


def in_use(data_dir: str | None = None, environ: Mapping[str, str] = os.environ) -> Location | None:
    """The database that `serve` uses; None: the settings alone.

    One is used where somebody asks for it (`data_dir`, `SLUICEGATE_DATA_DIR`, `SLUICEGATE_DATABASE_URL`), and
    where the default data directory has one. Raises UnavailableError for a URL that is not of PostgreSQL.
    """
    if data_dir is not None:
        environ = {**environ, "SLUICEGATE_DATA_DIR": data_dir}
    location = from_environment(environ)
    asked = environ.get("SLUICEGATE_DATA_DIR", "").strip() or location.is_postgresql
    return location if asked or location.sqlite_file.exists() else None


def _default_dir(environ: Mapping[str, str]) -> Path:
    """Where the XDG rules put a user's data."""
    home = environ.get("XDG_DATA_HOME", "").strip()
    return (Path(home) if home else Path.home() / ".local" / "share") / "sluicegate"
