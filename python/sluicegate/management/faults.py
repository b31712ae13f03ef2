"""What a store can fail with → the error that a client sees."""

from sluicegate import errors
from sluicegate.errors import GatewayError
from sluicegate.storage.errors import (
    ConflictError,
    InUseError,
    InvalidError,
    NameTakenError,
    NotFoundError,
    SecretsError,
    StorageError,
    UnavailableError,
)
from sluicegate.storage.idempotency import OtherRequestError

# The field that has to be unique, where it is not `name`.
_UNIQUE = {"workspace": "id", "user": "login"}


def public(error: StorageError) -> GatewayError:
    """The error of the API; anything that is not expected is a fault of ours."""
    text = str(error)
    match error:
        case NotFoundError():
            # Not «in this workspace»: these are in none.
            is_global = error.kind in ("workspace", "user")
            found = errors.object_not_found(f"There is no such {error.kind}." if is_global else text)
        case ConflictError():
            found = errors.version_conflict(text)
        case NameTakenError():
            found = errors.conflict("name_taken", text, _UNIQUE.get(error.kind, "name"))
        case InUseError():
            found = errors.conflict("in_use", text)
        case InvalidError():
            found = errors.bad_request("invalid_value", f"{text.removesuffix('.')}.", error.field or None)
        case OtherRequestError():
            found = errors.idempotency_key_reused(text)
        case UnavailableError() | SecretsError():
            found = errors.unavailable("database_unavailable", text)
        case _:
            found = errors.internal()
    return found
