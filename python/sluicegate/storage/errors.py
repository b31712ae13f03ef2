"""What a store can fail with. No text holds SQL, a secret, or a name of another workspace."""


class StorageError(Exception):
    """Any failure of a store; its text is public and says what to do."""


class NotFoundError(StorageError):
    """No such object in this workspace; one of another workspace is the same."""

    def __init__(self, kind: str, ref: str = "") -> None:
        super().__init__(f"There is no such {kind} in this workspace.")
        self.kind = kind
        self.ref = ref


class NameTakenError(StorageError):
    """The name is in use already."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(
            f"There is already {_article(kind)} {kind} of this name. Names are unique; choose another."
        )
        self.kind = kind
        self.name = name


class ConflictError(StorageError):
    """Somebody else has changed the object since it was read."""

    def __init__(self, kind: str, expected: int, found: int) -> None:
        super().__init__(
            f"The {kind} has changed since it was read (version {found}, not {expected}). Read it again."
        )
        self.kind = kind
        self.expected = expected
        self.found = found


class InUseError(StorageError):
    """Others still refer to the object; `by` names some of them."""

    def __init__(self, kind: str, by: tuple[str, ...]) -> None:
        super().__init__(f"The {kind} is still used by: {', '.join(by)}. Change these first.")
        self.kind = kind
        self.by = by


class InvalidError(StorageError):
    """A value that cannot be stored; `field` is its path, such as `settings.max_tokens`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message


class UnavailableError(StorageError):
    """The database cannot be reached, is locked by others for too long, or cannot be written."""


class SchemaError(StorageError):
    """The database's schema is not the one of this program."""


class SchemaTooNewError(SchemaError):
    """Written by a newer Sluicegate: nothing is touched."""


class SchemaTooOldError(SchemaError):
    """`sluicegate migrate` has to run first."""


class SecretsError(StorageError):
    """The master key is missing, malformed or not this database's; or a stored secret was altered."""


def _article(kind: str) -> str:
    return "an" if kind[:1] in "aeiou" else "a"


class LinkError(StorageError):
    """Redis gave no answer that can be used. The text is a cause, without the URL or a text of the server."""
