"""Copies of a session's kernels: branches, which run, and checkpoints, which are frozen."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import anyio

from sandbox.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded, SandboxError
from sandbox.kernels.answers import CHECKPOINT_NAME
from sandbox.kernels.checkpoints import AUTO, Checkpoints
from sandbox.kernels.execution import Execution
from sandbox.kernels.kernel import Kernel
from sandbox.kernels.models import PYTHON, Checkpoint, KeptCheckpoint, KernelInfo
from sandbox.policy.models import Limits

AUTO_TIMEOUT_S = 5.0
"""How long a cell waits for the checkpoint before it."""
BUSY_WAIT_S = 2.0
"""How long a copy waits for the cells of its kernel."""
MAX_WHY = 300
"""The characters of why a cell has no checkpoint."""
NO_SUCH = "list_checkpoints shows those that there are."

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RolledBack:
    """A kernel that is back at a checkpoint."""

    kernel: KernelInfo
    checkpoint: Checkpoint
    ended: list[str]
    """The executions that were ended for it."""
    notes: tuple[str, ...] = ()
    """What of the workspace is not as it was then, in words."""


class Branches:
    """Makes the copies of one session's kernels, and puts kernels back to them.

    Args:
        kernels: All of the session's, by id.
        find: A kernel of an id, or the default one.
        new: Makes a kernel of a kernelspec's name and an id, within the policy's bounds.
        started: Waits until a kernel answers; one that could not be started is forgotten.
    """

    def __init__(
        self,
        limits: Limits,
        kernels: Mapping[str, Kernel],
        find: Callable[[str], Kernel],
        new: Callable[..., Kernel],
        started: Callable[[Kernel], Awaitable[Kernel]],
    ) -> None:
        self._limits = limits
        self._kernels = kernels
        self._find = find
        self._new = new
        self._started = started
        self._making = 0
        self.is_auto = False
        """Whether a checkpoint is made before each cell."""

    async def branch(self, kernel_id: str = "", *, reseed: bool = True) -> KernelInfo:
        """Start another kernel that has all that a kernel has now, by copy on write.

        Args:
            reseed: Whether its random numbers are others than those of the kernel.

        Raises:
            QuotaExceeded: The policy lets the session have no more kernels.
            Conflict: The kernel is busy or dead, or has what cannot be copied.
        """
        kernel = self._of_python(kernel_id)
        await self._come_to_rest(kernel)
        with kernel.cells.at_rest():
            new_id = f"k-{secrets.token_hex(4)}"
            branch = self._new(kernel.name, new_id, branch_of=kernel.kernel_id, reseed=reseed)
            branch.self_description = kernel.self_description
            await self._started(branch)
            branch.cells.count = branch.cells.count or kernel.cells.count
        return branch.info()

    async def checkpoint(
        self, name: str, kernel_id: str = "", *, files: bool = False
    ) -> KeptCheckpoint:
        """Freeze a copy of a kernel, to which it can be rolled back as often as is wanted.

        Args:
            files: Whether the workspace's files are kept with it.

        Raises:
            InvalidRequest: That cannot be a checkpoint's name.
            QuotaExceeded: The policy lets the session have no more.
            Conflict: There is one of that name, or the kernel is busy or dead, or has what cannot
                be copied.
        """
        if not re.fullmatch(CHECKPOINT_NAME, name) or name.startswith(AUTO):
            raise InvalidRequest(
                f"{name!r:.80} cannot be a checkpoint's name.",
                remedy="It has 1 to 64 letters, digits, '.', '_' and '-', and does not begin with "
                f"{AUTO!r}, as those do that are made before cells.",
            )
        kernel = self._of_python(kernel_id)
        await self._come_to_rest(kernel)
        kept = (await kernel.checkpoints.known()).get(name)
        if kept is not None and kept.alive:  # one that is lost gives its name
            raise Conflict(
                f"The kernel {kernel.kernel_id} has a checkpoint {name!r} already.",
                remedy="Choose another name, or drop_checkpoint first.",
            )
        with kernel.cells.at_rest():
            return await self._made(kernel, name, files=files)

    async def roll_back(self, name: str, kernel_id: str = "") -> RolledBack:
        """Put a kernel, dead or alive, back to one of its checkpoints, which stays.

        Raises:
            NotFound: The kernel has no such checkpoint.
            Conflict: The checkpoint is lost.
        """
        kernel = self._of_python(kernel_id)
        kept = (await kernel.checkpoints.read()).get(name)
        if kept is None:
            raise _absent(kernel, name)
        if not kept.alive:
            raise Conflict(
                f"The checkpoint {name!r} of the kernel {kernel.kernel_id} is lost: its process "
                "has ended.",
                remedy=NO_SUCH,
            )
        before = tuple(kernel.cells)
        notes = await kernel.roll_back(name)
        ended = [each for each in before if each.snapshot().state == "rolled_back"]
        return RolledBack(kernel.info(), kept, [each.execution_id for each in ended], notes)

    async def checkpoints(self, kernel_id: str = "") -> tuple[Kernel, list[Checkpoint]]:
        """A kernel, and its checkpoints, oldest first; those that are lost, too."""
        kernel = self._find(kernel_id)
        if kernel.name != PYTHON:
            return kernel, []
        return kernel, list((await kernel.checkpoints.read()).values())

    async def drop(self, name: str, kernel_id: str = "") -> Kernel:
        """Let a checkpoint of a kernel go, and what it keeps of memory.

        Raises:
            NotFound: The kernel has no such checkpoint.
        """
        kernel = self._of_python(kernel_id)
        if name not in await kernel.checkpoints.read():
            raise _absent(kernel, name)
        await kernel.checkpoints.drop(name)
        return kernel

    async def before_cell(self, kernel: Kernel, execution: Execution) -> None:
        """Make the checkpoint before a cell, where that is wanted; without it the cell runs all
        the same, and its result says so."""
        if not self.is_auto or kernel.name != PYTHON:
            return
        try:
            with anyio.fail_after(AUTO_TIMEOUT_S):
                made = await self._made_before_cell(kernel)
        except TimeoutError:
            execution.lose(0, f"No checkpoint before it: none was made in {AUTO_TIMEOUT_S:g} s.")
        except SandboxError as exc:
            execution.lose(0, f"No checkpoint before it: {exc.message[:MAX_WHY]}")
        else:
            update = {"checkpoint": made}
            execution.record = execution.record.model_copy(update=update)

    # --- inside

    async def _come_to_rest(self, kernel: Kernel) -> None:
        """Wait until a kernel is ready, and a little for cells that have not ended."""
        await kernel.wait_ready()
        with anyio.move_on_after(BUSY_WAIT_S):
            while (busy := next(iter(kernel.cells), None)) is not None:
                await busy.wait()

    async def _made_before_cell(self, kernel: Kernel) -> str:
        checkpoints = kernel.checkpoints
        known = await checkpoints.known()
        name = f"{AUTO}{checkpoints.next_number(kernel.cells.count)}"
        if name in known:  # of a time before a rollback
            await self._let_go(checkpoints, name)
        await self._made(kernel, name, auto=True)
        return name

    async def _made(
        self, kernel: Kernel, name: str, *, files: bool = False, auto: bool = False
    ) -> KeptCheckpoint:
        for other in tuple(self._kernels.values()):
            if other.name == PYTHON:
                await other.checkpoints.known()
        # No await from the count to the note: calls that come at once see each other.
        every = [other.checkpoints for other in self._kernels.values()]
        named = sum(len(each) - len(each.of_cells) for each in every)
        if named + self._making >= self._limits.checkpoints:
            raise QuotaExceeded(
                f"The session has {named} checkpoints, as many as its policy allows.",
                remedy="drop_checkpoint frees one.",
            )
        self._making += 1
        try:
            made = await kernel.checkpoints.make(name, kernel.cells.count, files=files, auto=auto)
        finally:
            self._making -= 1
        await self._make_room(kernel.checkpoints, made)
        return made

    async def _make_room(self, own: Checkpoints, made: Checkpoint) -> None:
        """Let go the oldest of those made before cells: of a kernel's what is more than the last
        few, and of all what is more than the session may have."""
        spare = [(own, each) for each in own.of_cells[: -self._limits.auto_checkpoints or None]]
        every = [kernel.checkpoints for kernel in self._kernels.values()]
        over = sum(map(len, every)) - len(spare) - self._limits.checkpoints
        if over > 0:
            left = [(k, each) for k in every for each in k.of_cells if (k, each) not in spare]
            left.sort(key=lambda one: one[1].created_at)
            spare += [one for one in left if one[1] is not made][:over]
        for checkpoints, each in spare:
            await self._let_go(checkpoints, each.name)

    async def _let_go(self, checkpoints: Checkpoints, name: str) -> None:
        """Drop one that was made before a cell, if it is still there: for want of memory the
        supervisor lets them go, too."""
        try:
            await checkpoints.drop(name)
        except NotFound:
            return
        except SandboxError as exc:
            logger.warning("the checkpoint %s cannot be dropped: %s", name, exc)

    def _of_python(self, kernel_id: str) -> Kernel:
        kernel = self._find(kernel_id)
        if kernel.name != PYTHON:
            raise Conflict(
                f"The kernel {kernel.kernel_id} is one of {kernel.name}, and only those of "
                f"{PYTHON} can be copied.",
                remedy="Keep what it has in files.",
            )
        return kernel


def _absent(kernel: Kernel, name: str) -> NotFound:
    return NotFound(
        f"The kernel {kernel.kernel_id} has no checkpoint {name!r:.80}.", remedy=NO_SUCH
    )
