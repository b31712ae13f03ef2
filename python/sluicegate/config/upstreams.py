"""Upstreams of a file against those that are stored, secrets included."""

from sluicegate.config.file import KEPT, UpstreamEntry
from sluicegate.config.plain import plain_of
from sluicegate.config.step import Field, Item, Planner, Words, differing
from sluicegate.engine import Upstream as Handle
from sluicegate.ids import PLATFORM
from sluicegate.settings import Secret
from sluicegate.storage.codec import checked
from sluicegate.storage.transaction import Change
from sluicegate.toml_lines import Path
from sluicegate.upstreams import store
from sluicegate.upstreams.record import (
    NO_CREDENTIALS,
    Credentials,
    UpstreamDraft,
    UpstreamRecord,
    origin_of,
)
from sluicegate.upstreams.tokenizers import open_tokenizer

_STORED = Words("(stored)")


async def plan_upstream(
    planner: Planner, owner: str, entry: UpstreamEntry, before: UpstreamRecord | None, path: Path
) -> None:
    """What has to be done for one entry."""
    draft = normal(entry.draft())
    _open_tokenizers(planner, draft, {} if before is None else before.tokenizers, path)
    if owner != PLATFORM and (before is None or before.base_url != draft.base_url):
        _warn_of_private(planner, draft.base_url, (*path, "base_url"))
    old = NO_CREDENTIALS if before is None else await store.own_credentials(planner.view, owner, before.id)
    moved = before is not None and origin_of(draft.base_url) != before.origin
    new, fields = _credentials(planner, entry, NO_CREDENTIALS if moved else old, old, path)
    after = plain_of(draft, UpstreamDraft)
    item = Item("upstream", owner, entry.name)
    if before is None:

        async def create(change: Change) -> None:
            await store.create(change, owner, draft, new)

        planner.add("create", item, (*differing({}, after), *fields), path, create)
        return
    upstream, version = before.id, before.version
    changed = (*differing(plain_of(store.draft_of(before), UpstreamDraft), after), *fields)
    if not changed:
        return
    given = None if new == old and not moved else new

    async def replace(change: Change) -> None:
        await store.replace(change, owner, upstream, draft, credentials=given, expected=version)

    planner.add("change", item, changed, path, replace)


def plan_removal(planner: Planner, owner: str, record: UpstreamRecord) -> None:
    """An upstream that the file does not have."""

    async def remove(change: Change) -> None:
        await store.remove(change, owner, record.id, expected=record.version)

    planner.missing(Item("upstream", owner, record.name), remove)


def normal(draft: UpstreamDraft) -> UpstreamDraft:
    """As it will be read again."""
    draft = checked(draft)
    if not isinstance(draft.offered_to, tuple):
        return draft
    values = {name: getattr(draft, name) for name in UpstreamDraft.__struct_fields__}
    return UpstreamDraft(**values | {"offered_to": tuple(sorted(set(draft.offered_to))) or "none"})


def _warn_of_private(planner: Planner, base_url: str, path: Path) -> None:
    """The gateway's settings decide, which may be those of another machine."""
    try:
        Handle.check_foreign(base_url, [])
    except ValueError:
        planner.warn(
            path,
            "a private address: the gateway calls it only if `allow_private_networks` of its settings, or "
            "SLUICEGATE_ALLOW_PRIVATE_NETWORKS, has the range",
        )


def _open_tokenizers(planner: Planner, draft: UpstreamDraft, before: dict[str, str], path: Path) -> None:
    """Those that are new here, once each: a gateway could only say in its log that it cannot use one."""
    good: set[str] = set()
    for model, name in draft.tokenizers.items():
        if before.get(model) == name or name in good:
            continue
        try:
            open_tokenizer(name)
            good.add(name)
        except (ValueError, OSError) as error:
            planner.fail((*path, "tokenizers", model), str(error))


def _credentials(
    planner: Planner, entry: UpstreamEntry, keep: Credentials, old: Credentials, path: Path
) -> tuple[Credentials, tuple[Field, ...]]:
    """What will be stored, and how it differs; `keep` is what can be kept."""
    key = _one(planner, entry.api_key, keep.api_key, (*path, "api_key"))
    fields = [_field("api_key", entry.api_key, old.api_key, key)]
    headers: dict[str, Secret] = {}
    for name, ref in entry.headers.items():
        found = _one(planner, ref, keep.headers.get(name), (*path, "headers", name))
        if found is not None:
            headers[name] = found
    fields += [
        _field(f"headers.{name}", entry.headers.get(name), old.headers.get(name), headers.get(name))
        for name in sorted({*old.headers, *entry.headers})
    ]
    shown = tuple(field for field in fields if field is not None)
    return Credentials(api_key=key, headers=headers), shown


def _one(planner: Planner, ref: str | None, stored: Secret | None, path: Path) -> Secret | None:
    if ref is None:
        return None
    if ref != KEPT:
        return planner.secret(ref, path)
    if stored is None:
        planner.fail(
            path,
            f'"{KEPT}", but nothing is stored that could be kept: '
            "the upstream is new here, has none, or scheme, host or port change. Give env:NAME or file:PATH",
        )
    return stored


def _field(key: str, ref: str | None, old: Secret | None, new: Secret | None) -> Field | None:
    if old == new:
        return None
    return Field(key, None if old is None else _STORED, None if new is None else Words(ref or ""))
