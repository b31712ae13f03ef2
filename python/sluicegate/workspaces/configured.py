"""The settings of the one workspace of a settings file: `[workspace]`."""

from sluicegate.settings import Settings
from sluicegate.workspaces.model import WorkspaceSettings


def read(settings: Settings) -> WorkspaceSettings:
    """The table, checked; raises SettingsError with file, line and key."""
    values = dict(settings.workspace)
    # TOML has numbers: 4096 is as good as "4096".
    window = values.get("context_window")
    if isinstance(window, int) and not isinstance(window, bool):
        values["context_window"] = str(window)
    found = settings.section(values, WorkspaceSettings, ("workspace",))
    upstreams = [upstream.name for upstream in settings.upstreams]
    if found.default_upstream is not None and found.default_upstream not in upstreams:
        raise settings.source.error(
            ("workspace", "default_upstream"), f"there is no upstream `{found.default_upstream}`"
        )
    return found
