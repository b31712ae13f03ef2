"""What is stored, as a file that `apply` takes."""

from collections.abc import Collection, Iterable
from typing import Any

from sluicegate.assistants.model import AssistantDraft
from sluicegate.config.file import KEPT
from sluicegate.config.keys import key_values
from sluicegate.config.plain import plain_of
from sluicegate.config.plan import assistant_values, draft_of, workspace_values
from sluicegate.config.stored import StoredWorkspace, read
from sluicegate.keys.store import draft_of as key_draft
from sluicegate.storage.transaction import View
from sluicegate.toml_text import table_text
from sluicegate.upstreams.record import UpstreamDraft, UpstreamRecord

_HEAD = """\
# Written by `sluicegate export`. `sluicegate apply -f FILE` makes a database like it.
# "kept" stands for a secret that is stored and is not told: it stays. For another database write env:NAME or
# file:PATH in its place. A key without `secret` stays as it is, and is made where there is none of its name.
"""


async def export(view: View, wanted: Collection[str] | None = None) -> str:
    """The file of all workspaces, or of those that are wanted alone, without the operator's upstreams."""
    stored = await read(view, wanted)
    parts = [_HEAD]
    if wanted is None:
        parts += [table_text("[[upstream]]", _upstream(record)) for record in stored.upstreams.values()]
    for space in stored.workspaces.values():
        parts += _workspace(space)
    return "\n".join(parts)


def _workspace(space: StoredWorkspace) -> Iterable[str]:
    record = space.record
    yield table_text("[[workspace]]", {"id": record.id} | workspace_values(record.id, draft_of(record)))
    for upstream in space.upstreams.values():
        yield table_text("[[workspace.upstream]]", _upstream(upstream))
    for assistant in space.assistants.values():
        draft = AssistantDraft(name=assistant.name, spec=assistant.spec)
        yield table_text("[[workspace.assistant]]", assistant_values(draft))
    for key in space.keys.values():
        # A revoked key would come back to life as a new one.
        if key.revoked_at is None:
            yield table_text("[[workspace.key]]", key_values(key_draft(key), key.role))


def _upstream(record: UpstreamRecord) -> dict[str, Any]:
    values = plain_of(record, UpstreamDraft)
    if record.has_key:
        values["api_key"] = KEPT
    if record.header_names:
        values["headers"] = dict.fromkeys(record.header_names, KEPT)
    return values
