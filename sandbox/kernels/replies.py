"""What a kernel says at the end of a cell, checked before anybody believes it.

``metadata["sandbox"]["exit_code"]`` is no part of the protocol: the kernels of our images put the
code there with which a cell ended itself, or, for bash, that of its last command.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from sandbox.kernels.innerends import state_told
from sandbox.kernels.messages import KernelMessage
from sandbox.kernels.models import KernelState

MAX_PAGES = 4


@dataclass(frozen=True, slots=True)
class Reply:
    """An ``execute_reply``."""

    status: Literal["ok", "error", "aborted"]
    count: int | None
    """The kernel's number for the cell; None when it gives none."""
    exit_code: int | None
    """None when the kernel tells of none."""
    state: KernelState
    """What became of the kernel's variables."""
    pages: tuple[Mapping[str, Any], ...]
    """What ``name?`` shows, which IPython sends with the reply only: mime bundles."""


def reply_of(message: KernelMessage) -> Reply:
    """Read an ``execute_reply``."""
    content = message.content
    status = content.get("status")
    raw = content.get("payload")
    payload = cast("list[Any]", raw)[:MAX_PAGES] if isinstance(raw, list) else []
    pages = (cast("dict[str, Any]", each) for each in payload if isinstance(each, dict))
    return Reply(
        status="ok" if status == "ok" else "error" if status == "error" else "aborted",
        count=number(content.get("execution_count")),
        exit_code=exit_code_of(message.metadata),
        state=state_told(message.metadata),
        pages=tuple(page for page in pages if page.get("source") == "page"),
    )


def exit_code_of(metadata: Mapping[str, Any]) -> int | None:
    """The exit code in the metadata of a reply; None when there is none that can be one."""
    ours = metadata.get("sandbox")
    code = cast("dict[str, Any]", ours).get("exit_code") if isinstance(ours, dict) else None
    return code if type(code) is int and -(2**31) <= code < 2**31 else None


def number(value: Any) -> int | None:
    """A kernel's number for a cell; None for what cannot be one."""
    return value if type(value) is int and 0 <= value < 2**31 else None
