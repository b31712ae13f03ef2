"""The client for any OpenAI-compatible server, asynchronous and blocking, with the same names."""

from sluicegate.client.answer import Answer, Embeddings, Step, ToolCall, ToolResult
from sluicegate.client.asynchronous import AsyncClient
from sluicegate.client.blocking import Client
from sluicegate.client.errors import (
    AuthenticationError,
    ClientError,
    ClosedError,
    InvalidRequestError,
    ModelNotFoundError,
    OutputError,
    ProtocolError,
    RateLimitedError,
    RequestTimeoutError,
    ServerError,
    SettingsError,
    StepLimitError,
    StreamInterruptedError,
    ToolDefinitionError,
    UnreachableError,
)
from sluicegate.client.middleware import Middleware, Retry
from sluicegate.client.request import Options, Request
from sluicegate.client.settings import Timeouts
from sluicegate.client.stream import AsyncStream, Stream
from sluicegate.client.tools import Tool
from sluicegate.engine import Chunk, ToolCallDelta, Usage

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncStream",
    "AuthenticationError",
    "Chunk",
    "Client",
    "ClientError",
    "ClosedError",
    "Embeddings",
    "InvalidRequestError",
    "Middleware",
    "ModelNotFoundError",
    "Options",
    "OutputError",
    "ProtocolError",
    "RateLimitedError",
    "Request",
    "RequestTimeoutError",
    "Retry",
    "ServerError",
    "SettingsError",
    "Step",
    "StepLimitError",
    "Stream",
    "StreamInterruptedError",
    "Timeouts",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolDefinitionError",
    "ToolResult",
    "UnreachableError",
    "Usage",
]
