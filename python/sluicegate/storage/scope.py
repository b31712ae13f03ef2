"""The workspace that a statement is about: that it is there, and that nobody has changed what was read."""

import re
from typing import Any

import orjson
from sqlalchemy import ColumnElement, exists, select

from sluicegate.storage import schema
from sluicegate.storage.errors import ConflictError, NotFoundError
from sluicegate.storage.transaction import View


async def require_workspace(view: View, workspace: str) -> None:
    """Raises NotFoundError where the workspace is not there; the platform's own one always is."""
    table = schema.workspaces
    query = select(exists().where(table.c.id == workspace, table.c.deleted_at.is_(None)))
    if not (await view.execute(query)).scalar():
        raise NotFoundError("workspace", workspace)


def require_version(kind: str, expected: int | None, found: int) -> None:
    """Raises ConflictError where `expected` is given and is not the version that is there."""
    if expected is not None and expected != found:
        raise ConflictError(kind, expected, found)


def contains(column: "ColumnElement[Any]", part: str) -> "ColumnElement[bool]":
    """Whether a text has `part` in it, without case."""
    escaped = re.sub(r"([%_~])", r"~\1", part)
    return column.ilike(f"%{escaped}%", escape="~")


def json_text(text: str) -> str:
    """A text as it stands within JSON in the database."""
    return orjson.dumps(text).decode()[1:-1]
