"""What is told of a fork: while it is made, and of what came of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from mcp.server.mcpserver import Context

from sandbox.kernels.carrying import CarriedState
from sandbox.sessions.forking import Fork, ForkedSession, Progress

INTERVAL_S = 2.0
MAX_NAMES = 40
"""Names of each kind that a text tells."""
MAX_FILES = 10
MAX_REASON_CHARS = 200


@asynccontextmanager
async def telling(ctx: Context[Any, Any], progress: Progress) -> AsyncGenerator[None]:
    """Tell the caller now and then how far a fork has come, while the block runs."""

    async def tell() -> None:
        told_s = 0.0
        while True:
            await anyio.sleep(INTERVAL_S)
            told_s += INTERVAL_S
            await ctx.report_progress(told_s, None, str(progress))

    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tell)
        try:
            yield
        except Exception as exc:  # raised below as it is, not in a group
            failure = exc
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


def fork_in_words(fork: ForkedSession) -> str:
    """What a fork has, in a line for each thing."""
    name = f" {fork.name!r}" if fork.name else ""
    files = f"{fork.files} files ({_size(fork.file_bytes)})"
    lines = [f"Session {fork.session_id}{name}: {files}."]
    for kernel in fork.kernels:
        lines += _kernel_lines(kernel)
    return "\n".join(lines)


def left_in_words(fork: Fork) -> str:
    """What no fork has."""
    lines = [f"Left behind: {'; '.join(fork.left_behind)}."]
    if fork.files_left:
        shown = _some(fork.files_left, MAX_FILES, len(fork.files_left))
        lines.append(f"Of the files: {shown}.")
    return "\n".join(lines)


def _kernel_lines(kernel: CarriedState) -> list[str]:
    count, size = kernel.carried_count, _size(kernel.size_bytes)
    names = f": {_some(kernel.carried, MAX_NAMES, count)}" if count else ""
    lines = [f"Kernel {kernel.kernel_id}: {count} names ({size}){names}."]
    if kernel.left:
        lines.append("Not carried:")
        lines += [
            f"- {each.name}: {each.reason[:MAX_REASON_CHARS]}" for each in kernel.left[:MAX_NAMES]
        ]
        if (more := kernel.left_count - len(kernel.left[:MAX_NAMES])) > 0:
            lines.append(f"- and {more} more")
    if kernel.problem:
        lines.append(f"Its variables are not carried as a whole: {kernel.problem}")
    return lines


def _some(names: Iterable[str], most: int, count: int) -> str:
    shown = list(names)[:most]
    more = count - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _size(count: int) -> str:
    return f"{count} bytes" if count < 10_000 else f"{count / 1e6:.3g} MB"
