"""Branches and checkpoints of the kernels in memory: the operations that copy kernels.

What a kernel cannot be copied with is said by its own statements: ``block("a thread")``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.errors import Conflict, NotFound
from sandbox.link.link import Stream
from sandbox.testing.filesystem import FakeFiles
from sandbox.testing.kernel import FakeKernel, KernelCopy

MEMORY_BYTES = 1024 * 1024
"""What each frozen copy takes."""
OPS = frozenset({"branch", "checkpoint", "rollback", "checkpoints", "drop_checkpoint"})


@dataclass(slots=True)
class Frozen:
    """A checkpoint."""

    copy: KernelCopy
    files: Any = None
    alive: bool = True
    created_at: float = field(default_factory=time.time)


class FakeCheckpoints:
    """Answers the ``kernel.*`` operations of :data:`OPS`; kernels outlive none of their own."""

    def __init__(
        self, kernels: dict[str, FakeKernel], files: FakeFiles, next_pid: Callable[[], int]
    ) -> None:
        self._kernels = kernels
        self._files = files
        self._next_pid = next_pid
        self.frozen: dict[str, dict[str, Frozen]] = {}
        """By kernel and name."""
        self.told_of_files: dict[str, Any] = {}
        """What is told besides of files that are kept or put back."""

    async def serve(
        self, stream: Stream, op: str, kernel: FakeKernel, request: Mapping[str, Any]
    ) -> None:
        """Answer one stream."""
        own = self.frozen.setdefault(kernel.kernel_id, {})
        name = str(request.get("name", ""))
        match op:
            case "branch":
                await stream.send_json(self._branch(kernel, str(request["new_id"])))
            case "checkpoint":
                if name in own:
                    raise Conflict(f"There is a checkpoint {name!r:.80} already.")
                files = self._files.copied() if request.get("files") else None
                own[name] = Frozen(kernel.copied(), files)
                told_of_files = {} if files is None else self.told_of_files
                await stream.send_json({**_described(name, own[name]), **told_of_files})
            case "checkpoints":
                told = [_described(each, frozen) for each, frozen in own.items()]
                await stream.send_json({"checkpoints": told})
            case _:
                frozen = own.get(name)
                if frozen is None:
                    raise NotFound(f"There is no checkpoint {name!r:.80}.")
                if op == "drop_checkpoint":
                    del own[name]
                    await stream.send_json({})
                    return
                if not frozen.alive:
                    raise Conflict(f"The checkpoint {name!r:.80} is gone.")
                told_of_files = {}
                if frozen.files is not None:
                    self._files.put_back(frozen.files)
                    told_of_files = self.told_of_files
                kernel.roll_back(self._next_pid(), frozen.copy, name)
                told = {"pid": kernel.pid, "epoch": kernel.epoch}
                await stream.send_json({**told, **told_of_files})

    def _branch(self, kernel: FakeKernel, new_id: str) -> dict[str, Any]:
        if new_id in self._kernels:
            raise Conflict(f"There is a kernel {new_id!r:.80} already.")
        branch = FakeKernel(new_id, kernel.name, self._next_pid(), kernel.copied())
        branch.branch_of = kernel.kernel_id
        self._kernels[new_id] = branch
        told = {"kernel_id": new_id, "name": branch.name}
        return {**told, "pid": branch.pid, "epoch": branch.epoch}


def _described(name: str, frozen: Frozen) -> dict[str, Any]:
    return {
        "name": name,
        "created_at": frozen.created_at,
        "memory_bytes": MEMORY_BYTES,
        "files": frozen.files is not None,
        "alive": frozen.alive,
    }
