"""What clients and frameworks add of their own to the arguments of a call, which is none of ours.

Known ones are ignored and the result says so; any other unknown argument is refused, since it may
be one of ours misspelt.
"""

from __future__ import annotations

from collections.abc import Iterable

FOREIGN = frozenset(
    {
        *("toolCallId", "tool_call_id", "callId", "call_id", "toolName", "tool_name"),
        *("sessionId", "chatInput", "action", "chatId", "chat_id"),
        *("requestId", "request_id", "correlationId", "correlation_id", "traceId", "trace_id"),
        *("conversationId", "conversation_id", "threadId", "thread_id"),
        *("messageId", "message_id", "runId", "run_id", "taskId", "task_id"),
        *("meta", "metadata", "progressToken"),
    }
)
"""Names of arguments that are a client's own; none of a tool's may be among them."""


def is_foreign(name: str) -> bool:
    """Whether an argument is a client's own: a known one, or marked as private (``_meta``)."""
    return name in FOREIGN or name.startswith("_")


def foreign_in(arguments: Iterable[str], known: Iterable[str]) -> list[str]:
    """The arguments that are no tool's and a client's own."""
    ours = frozenset(known)
    return [name for name in arguments if name not in ours and is_foreign(name)]
