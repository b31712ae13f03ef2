"""What the demo makes in its database: a workspace with an upstream, two assistants and a key."""

import asyncio
from pathlib import Path
from typing import Final

from sluicegate.assistants import store as assistants
from sluicegate.assistants.model import AssistantDraft, AssistantSpec
from sluicegate.keys import store as keys
from sluicegate.keys.model import KeyDraft
from sluicegate.settings import Secret
from sluicegate.storage.database import Database
from sluicegate.storage.location import Location
from sluicegate.storage.transaction import Actor
from sluicegate.upstreams import store as upstreams
from sluicegate.upstreams.record import Credentials, UpstreamDraft
from sluicegate.workspaces import store as workspaces
from sluicegate.workspaces.model import WorkspaceDraft

WORKSPACE: Final = "demo"
ASSISTANT: Final = "Guide to Sluicegate"

# One that is asked, and one that locks what a client may set.
_ASSISTANTS: Final = (
    AssistantDraft(
        name=ASSISTANT,
        spec=AssistantSpec(
            description="Explains what a gateway does.",
            model=("demo/demo", "demo/demo-fast"),
            system_prompt="You explain what a gateway does, in plain words.",
            temperature=0.2,
        ),
    ),
    AssistantDraft(
        name="short-answers",
        spec=AssistantSpec(
            description="At most 40 tokens, whatever the client asks for.",
            model=("demo/demo-fast",),
            system_prompt="Answer in one sentence.",
            max_tokens=40,
            locked=frozenset({"system_prompt", "max_tokens"}),
        ),
    ),
)


def make_records(folder: Path, base_url: str) -> str:
    """Make them in one transaction; the text of the key. Raises StorageError."""
    return asyncio.run(_make(folder, base_url))


async def _make(folder: Path, base_url: str) -> str:
    database = await Database.open(Location(data_dir=folder))
    try:
        async with database.change(Actor("cli:demo")) as change:
            await workspaces.create(change, WORKSPACE, WorkspaceDraft(name="Demo"))
            draft = UpstreamDraft(name="demo", base_url=base_url)
            await upstreams.create(change, WORKSPACE, draft, Credentials(api_key=Secret("demo")))
            for assistant in _ASSISTANTS:
                await assistants.create(change, WORKSPACE, assistant)
            _, text = await keys.create(change, WORKSPACE, KeyDraft(name="demo"))
    finally:
        await database.close()
    return text
