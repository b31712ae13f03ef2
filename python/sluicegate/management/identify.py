"""The credentials of a request to the management API → the caller. Only admin keys are taken."""

from sluicegate import errors
from sluicegate.http.exchange import Exchange
from sluicegate.http.guard import Caller, permissions_of
from sluicegate.keys.authenticate import credential_of, require_in_force
from sluicegate.keys.cache import KeyReader
from sluicegate.keys.secret import is_mistyped, read

_UNKNOWN = "The API key is not known here. Check that it is an admin key of this gateway (sk-sgadmin-…)."


async def identify(keys: KeyReader, exchange: Exchange) -> Caller:
    """Raises a 401 for everything but an admin key in force; UnavailableError while nobody can tell."""
    head = exchange.head
    given = credential_of(head.authorization, head.other_keys)
    text = given.decode("latin-1")
    if is_mistyped(text):
        raise errors.invalid_api_key("The API key is mistyped or cut off: its check digits are wrong.")
    known = read(text)
    if known is None or known.kind != "admin":
        # Not looked up: whether it is somebody's client key is not told.
        raise errors.invalid_api_key("The management API takes admin keys only (sk-sgadmin-…).")
    grant = keys.peek(given) or await keys.find(given)
    if grant is None or grant.principal.kind != "admin" or grant.principal.role is None:
        raise errors.invalid_api_key(_UNKNOWN)
    require_in_force(grant)
    found = grant.principal
    exchange.key_until = found.until
    permissions = permissions_of(grant.principal.role, found.scopes)
    return Caller(found.id, found.name, found.workspace, grant.principal.role, permissions)
