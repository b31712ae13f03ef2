"""What a configuration file may say: the stored records, with secrets as references."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from sluicegate.assistants.model import AssistantDraft, AssistantName, AssistantSpec
from sluicegate.keys.model import KeyDraft
from sluicegate.toml_lines import Path
from sluicegate.upstreams.record import HeaderName, UpstreamDraft
from sluicegate.workspaces.model import WorkspaceDraft, WorkspaceId, WorkspaceSettings

# Stands for the secret that is stored: it stays, and the file does not say it.
KEPT = "kept"

D = TypeVar("D", bound=Struct)

# `-` is standard input, on the command line only.
SecretRef = Annotated[str, Meta(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+|kept|-)\Z")]
# Many headers are no secrets: their text may stand here.
HeaderRef = Annotated[
    str, Meta(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+|text:[^\x00-\x1f\x7f]*|kept)\Z")
]
# A secret of one's own: there is nothing to keep, as leaving it out means the same.
OwnSecretRef = Annotated[str, Meta(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+|-)\Z")]


class UpstreamEntry(UpstreamDraft, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[workspace.upstream]]`, and `[[upstream]]` of the operator."""

    api_key: SecretRef | None = None
    headers: dict[HeaderName, HeaderRef] = msgspec.field(default_factory=dict)

    def draft(self) -> UpstreamDraft:
        """Without the secrets."""
        return _part(self, UpstreamDraft)


class AssistantEntry(AssistantSpec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[workspace.assistant]]`: a name, and what the assistant says."""

    name: AssistantName
    # In place of `system_prompt`: its text, relative to the file.
    system_prompt_file: Annotated[str, Meta(min_length=1)] | None = None

    def draft(self) -> AssistantDraft:
        """Name and content."""
        return AssistantDraft(name=self.name, spec=_part(self, AssistantSpec))


class KeyEntry(KeyDraft, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[workspace.key]]`: a key of the workspace; with a `role` it is an admin key."""

    # A date or a time with its offset; as a number, milliseconds since 1970.
    expires_at: Annotated[int, Meta(ge=0, le=1 << 53)] | None = msgspec.field(default=None, name="expires")
    role: Literal["workspace_admin", "member", "viewer"] | None = None
    secret: OwnSecretRef | None = None

    def draft(self) -> KeyDraft:
        """Without role and secret."""
        return _part(self, KeyDraft)


class WorkspaceSettingsEntry(WorkspaceSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A workspace alone: its id, its name, its settings."""

    id: WorkspaceId
    # Left out: the id.
    name: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+\Z")] | None = None

    def draft(self) -> WorkspaceDraft:
        """Name and settings."""
        return WorkspaceDraft(name=self.name or self.id, settings=_part(self, WorkspaceSettings))


class WorkspaceEntry(WorkspaceSettingsEntry, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[workspace]]`: itself, and what it owns."""

    upstream: tuple[UpstreamEntry, ...] = ()
    assistant: tuple[AssistantEntry, ...] = ()
    key: tuple[KeyEntry, ...] = ()


class ConfigFile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole file."""

    # The operator's own.
    upstream: tuple[UpstreamEntry, ...] = ()
    workspace: tuple[WorkspaceEntry, ...] = ()

    def assistants(self) -> Iterator[tuple[WorkspaceEntry, AssistantEntry, Path]]:
        """Every assistant, with its workspace and where it stands."""
        for number, workspace in enumerate(self.workspace):
            for index, assistant in enumerate(workspace.assistant):
                yield workspace, assistant, ("workspace", number, "assistant", index)


# The structs by the heading of their table in a file.
TABLES: dict[str, type[Struct]] = {
    "[[workspace]]": WorkspaceEntry,
    "[[workspace.upstream]]": UpstreamEntry,
    "[[workspace.assistant]]": AssistantEntry,
    "[[workspace.key]]": KeyEntry,
    "[[upstream]]": UpstreamEntry,
}


def _part(entry: Struct, kind: type[D]) -> D:
    """The fields that an entry has from the record."""
    values: dict[str, Any] = {name: getattr(entry, name) for name in kind.__struct_fields__}
    return kind(**values)
