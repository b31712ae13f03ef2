"""What the stages of a request work with."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from sluicegate.chat.directory import Directory
from sluicegate.chat.keep import StoredChats
from sluicegate.chat.prepare import MakeRecipe, Operation
from sluicegate.chat.remember import ChatMemory
from sluicegate.chat.scopes import Scopes
from sluicegate.chat.thinking import Verifier
from sluicegate.chat.window import ContextWindows
from sluicegate.http.body import BodyReader
from sluicegate.http.relay import ClientWatches
from sluicegate.keys.authenticate import Authenticator
from sluicegate.limits.admit import Limiter
from sluicegate.quality.scores import Scores
from sluicegate.upstreams.select import RetryBudget
from sluicegate.usage.settle import Ledger

if TYPE_CHECKING:
    from sluicegate.engine import Engine, Request


# A struct: attributes of a NamedTuple take three times as long to read, and each request reads thirty.
class Parts(Struct, frozen=True):
    """What the stages work with; built once by the composition root."""

    keys: Authenticator
    bodies: BodyReader
    scan: "Callable[[Operation, bytes], Request]"
    engine: "Engine"
    directory: Directory
    make_recipe: MakeRecipe
    windows: ContextWindows
    budget: RetryBudget
    scopes: Scopes
    limiter: Limiter
    ledger: Ledger
    watches: ClientWatches
    keep_alive: float
    chats: StoredChats
    memory: ChatMemory
    thinking: Verifier = Verifier()
    scores: Scores = Scores(None)
