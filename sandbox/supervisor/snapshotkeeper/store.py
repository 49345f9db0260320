"""All snapshots of a workspace, by name."""

from __future__ import annotations

import os
import time
from typing import Any

from sandbox.errors import Conflict, NotFound, QuotaExceeded
from sandbox.supervisor.snapshotkeeper.bounds import LIMIT_S, Bounds, Memory
from sandbox.supervisor.snapshotkeeper.restoring import restore
from sandbox.supervisor.snapshotkeeper.taking import Latest, Taken, Taking
from sandbox.supervisor.snapshotkeeper.trees import File, nodes

MAX_SNAPSHOTS = 64
TOLD = 10
"""So many paths are named of those that are told."""


class Store:
    """Snapshots of one workspace. What two of them have in common is kept once.

    Args:
        root: A descriptor of the workspace.
        memory: What they may take.
        limit_s: How long one operation may look and copy.
    """

    def __init__(self, root: int, memory: Memory, limit_s: float = LIMIT_S) -> None:
        self._root = root
        self._memory = memory
        self._limit_s = limit_s
        self._snapshots: dict[str, Taken] = {}
        self._latest = Latest()

    def take(self, name: str) -> dict[str, Any]:
        """Take a snapshot, or change nothing.

        Raises:
            SandboxError: It cannot be kept; says why.
            OSError: Something cannot be read.
        """
        if name in self._snapshots:
            raise Conflict(f"There is a snapshot named {name!r} already.")
        if len(self._snapshots) >= MAX_SNAPSHOTS:
            raise QuotaExceeded(
                f"There are {MAX_SNAPSHOTS} snapshots already.",
                remedy="Drop a checkpoint that is not needed any more.",
            )
        began = time.monotonic()
        bounds = self._bounds()
        taken, latest = Taking(self._root, self._latest, bounds).run()
        bounds.check()
        self._snapshots[name], self._latest = taken, latest
        return {
            "files": taken.files,
            "folders": taken.folders,
            "links": taken.links,
            "bytes": taken.bytes,
            "copied_bytes": taken.copied_bytes,
            "held_bytes": self._memory.held_bytes(),
            "changing": taken.changing[:TOLD],
            "changing_count": len(taken.changing),
            "left_out": taken.left_out[:TOLD],
            "left_out_count": len(taken.left_out),
            "took_s": time.monotonic() - began,
        }

    def restore(self, name: str) -> dict[str, Any]:
        """Make the workspace what it was.

        Raises:
            SandboxError: It cannot be done, and nothing was changed, if the error does not say
                something else.
            OSError: The same.
        """
        began = time.monotonic()
        wanted = self._find(name).root
        done, self._latest = restore(self._root, wanted, self._latest, self._bounds())
        return {
            "written": done.written,
            "written_bytes": done.written_bytes,
            "removed": done.removed,
            "mended": done.mended,
            "kept": done.kept,
            "lost": done.lost[:TOLD],
            "lost_count": len(done.lost),
            "left": done.left,
            "took_s": time.monotonic() - began,
        }

    def drop(self, name: str) -> dict[str, Any]:
        """Forget a snapshot.

        Raises:
            NotFound: There is none of that name.
        """
        self._find(name)
        dropped = self._snapshots.pop(name)
        if dropped.root is self._latest.root:
            self._latest = self._still_held(self._latest)
        del dropped
        self._memory.give_back()
        return {"held_bytes": self._memory.held_bytes()}

    def _still_held(self, latest: Latest) -> Latest:
        """Of what is known, what some snapshot has: nothing else is kept for its sake."""
        contents = {
            node.content
            for taken in self._snapshots.values()
            for node in nodes(taken.root)
            if isinstance(node, File)
        }
        held = {key: known for key, known in latest.files.items() if known.file.content in contents}
        return Latest(files=held)

    def _find(self, name: str) -> Taken:
        found = self._snapshots.get(name)
        if found is None:
            raise NotFound(f"There is no snapshot named {name!r}.")
        return found

    def _bounds(self) -> Bounds:
        return Bounds(self._memory, limit_s=self._limit_s)


def opened(workspace: str) -> int:
    """A descriptor of the workspace.

    Raises:
        OSError: It is not there, or is a link.
    """
    return os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
