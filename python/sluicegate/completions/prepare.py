"""The body of a text completion: what holds for chat holds here, `stream_options` included."""

from sluicegate.chat.prepare import prepare

__all__ = ["prepare"]
