"""A new process for a kernel that keeps its id: begun anew, or put back to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from sandbox.answers import parse
from sandbox.errors import (
    Conflict,
    InvalidRequest,
    LinkLost,
    NotFound,
    QuotaExceeded,
    SandboxError,
)
from sandbox.kernels.answers import FilesBack, epoch_of
from sandbox.kernels.attachment import Attachment
from sandbox.kernels.cells import Cells

_REFUSALS = (Conflict, InvalidRequest, NotFound, QuotaExceeded)


@dataclass(slots=True, eq=False)
class Replacement:
    """What is to be done with a kernel's process, and what came of it.

    Args:
        checkpoint: What the kernel is put back to; empty when it begins anew.
        count: The kernel's number of the last cell before that.
        is_overdue: Whether it is because a cell went on when its time was over.
    """

    checkpoint: str = ""
    count: int = 0
    is_overdue: bool = False
    done: anyio.Event = field(default_factory=anyio.Event)
    error: SandboxError | None = None
    notes: tuple[str, ...] = ()
    """What of the files is not as it was at the checkpoint, in words."""
    exit: Mapping[str, Any] | None = None
    """How the process before it has ended meanwhile."""

    async def ask(self, attachment: Attachment) -> int:
        """Have the supervisor do it, and return the epoch that the kernel is in then; 0 when it
        failed, and ``error`` says why."""
        op, fields = "kernel.restart", dict[str, Any]()
        if self.checkpoint:
            op, fields = "kernel.rollback", {"name": self.checkpoint}
        try:
            answer = await attachment.call(op, **fields)
            self.notes = parse(FilesBack, answer).notes()
            return epoch_of(answer)
        except SandboxError as exc:
            self.error = exc
            return 0

    @property
    def death(self) -> str:
        """Why the kernel is dead since; empty when it is not."""
        if self.error is None or isinstance(self.error, LinkLost):  # the next link leads here again
            return ""
        if not self.checkpoint:
            return f"It could not be restarted: {self.error.message}"
        is_refused = isinstance(self.error, _REFUSALS)  # then nothing was changed
        return "" if is_refused else f"It could not be rolled back: {self.error.message}"

    def end(self, cells: Cells) -> None:
        """End the cells of the process that is gone."""
        if self.is_overdue:
            cells.end_overdue()
        if self.checkpoint:
            reason = f"The kernel was rolled back to the checkpoint {self.checkpoint!r}."
            cells.end_all("interrupted", "rolled_back", reason, "was rolled back", "interrupted")
        else:
            reason = "The kernel was restarted."
            cells.end_all("interrupted", "restarted", reason, "was restarted")
        cells.count = self.count


class Replacing:
    """Which replacement of a kernel's process is wanted, and which is under way."""

    def __init__(self, kernel_id: str) -> None:
        self._kernel_id = kernel_id
        self._wanted: Replacement | None = None
        self.current: Replacement | None = None
        """While it is not None the process's exit is no death."""
        self._doubtful: Replacement | None = None
        """The last one, when the link ended before it was confirmed."""

    @property
    def found(self) -> Replacement:
        """What has brought a process about that a new link finds."""
        return self.current or self._doubtful or Replacement()

    async def have(self, wish: Replacement, attend: Callable[[], None]) -> Replacement:
        """Wait until it is done, and return it; ``attend`` is called when it can be.

        Raises:
            Conflict: Another one comes before.
            SandboxError: It failed.
        """
        if self._wanted is not None and self._wanted.checkpoint != wish.checkpoint:
            raise Conflict(f"The kernel {self._kernel_id} is being replaced.", remedy="Try again.")
        wish = self._wanted = self._wanted or wish
        attend()
        await wish.done.wait()
        if wish.error is not None:
            raise wish.error
        return wish

    def take(self) -> Replacement | None:
        """The one that is wanted, which is wanted no more."""
        wish, self._wanted = self._wanted, None
        return wish

    @contextmanager
    def under_way(self, replacement: Replacement) -> Generator[None]:
        """Note that it is being done, and let whoever waits for it go at the end."""
        self.current = replacement
        try:
            yield
        finally:
            self.current = None
            self._doubtful = replacement if isinstance(replacement.error, LinkLost) else None
            replacement.done.set()

    def give_up(self) -> None:
        """The kernel is let go of: let whoever waits go."""
        if self._wanted is not None:
            self._wanted.done.set()
