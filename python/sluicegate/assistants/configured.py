"""The assistants of a settings file: `[[assistants]]`, for the one workspace that such a gateway has."""

from typing import Any

from sluicegate.assistants.model import Assistant, AssistantName, AssistantSpec
from sluicegate.settings import Settings


class AssistantConfig(AssistantSpec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[assistants]]`: a name, and what the assistant says."""

    name: AssistantName

    def spec(self) -> AssistantSpec:
        """All but the name."""
        values = {field: getattr(self, field) for field in AssistantSpec.__struct_fields__}
        return AssistantSpec(**values)


def read(settings: Settings, workspace: str, created: int) -> tuple[Assistant, ...]:
    """The assistants, checked. `created`: seconds since 1970.

    Raises SettingsError, with file, line and key, also for a name used twice and for a model whose upstream
    is not configured.
    """
    upstreams = {upstream.name for upstream in settings.upstreams}
    found: dict[str, Assistant] = {}
    for index, values in enumerate(settings.assistants):
        path = ("assistants", index)
        _require_slashes(settings, path, values.get("model"))
        config = settings.section(values, AssistantConfig, path)
        if config.name in found:
            raise settings.source.error((*path, "name"), f"the name `{config.name}` is used twice")
        for ref in config.model:
            upstream = ref.partition("/")[0]
            if upstream not in upstreams:
                raise settings.source.error(
                    (*path, "model"),
                    f"`{ref}`: there is no upstream `{upstream}`; expected its name, a slash, the model",
                )
        found[config.name] = Assistant(
            id=f"asst_settings_{index}",
            workspace=workspace,
            name=config.name,
            spec=config.spec(),
            version=1,
            created_at=created * 1000,
            updated_at=created * 1000,
        )
    return tuple(found.values())


def _require_slashes(settings: Settings, path: tuple[str | int, ...], refs: Any) -> None:
    """The likeliest mistake, in words: the pattern of a reference says it to nobody."""
    for ref in refs if isinstance(refs, list) else ():
        if isinstance(ref, str) and "/" not in ref:
            raise settings.source.error(
                (*path, "model"), f"`{ref}`: expected an upstream's name, a slash, the model's id"
            )
