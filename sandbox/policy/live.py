"""Policies that follow their files: an edit counts for new sessions, a mistake changes nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sandbox.errors import NotFound, SandboxError
from sandbox.policy.loader import SUFFIX, PolicySet
from sandbox.policy.models import Policy
from sandbox.policy.packages import LOCKS

LOOK_EVERY_S = 1.0

logger = logging.getLogger(__name__)

Signature = tuple[tuple[str, int, int, int], ...]


class LivePolicies(PolicySet):
    """The policies of some folders as they are now, or were when they were last right.

    Sessions that are open go on under the policy they were opened with.

    Args:
        changed: Called after each change with what is wrong, or None when the new set is in force.

    Raises:
        SandboxError: They cannot be read at the start.
    """

    def __init__(
        self,
        read: Callable[[], PolicySet],
        folders: Sequence[Path],
        *,
        changed: Callable[[SandboxError | None], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._folders = tuple(folders)
        self._clock = clock
        self.changed = changed
        self.problem: SandboxError | None = None
        """What is wrong with the files as they are now; None when they are in force."""
        self._signature = self._look()
        self._looked_at = clock()
        first = read()
        super().__init__({})
        self._take(first)

    def names(self) -> list[str]:
        """The names, sorted."""
        self.refresh()
        return super().names()

    def get(self, name: str = "") -> Policy:
        """The policy of that name; an empty name is the default's.

        Raises:
            PolicyError: It cannot be the name of a policy.
            NotFound: There is no such policy; if the files are wrong now, the remedy says how.
        """
        self.refresh()
        try:
            return super().get(name)
        except NotFound as exc:
            if self.problem is None:
                raise
            raise NotFound(
                exc.message,
                remedy=f"The policy files were edited and are wrong, so those of before are in "
                f"force: {self.problem.message}",
            ) from None

    def refresh(self) -> None:
        """Read the files again if they changed since they were last looked at."""
        if self._clock() - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = self._clock()
        signature = self._look()
        if signature == self._signature:
            return
        self._signature = signature
        try:
            found = self._read()
        except SandboxError as exc:
            self.problem = exc
            logger.error("the policies of before stay in force: %s", exc)
        else:
            self.problem = None
            self._take(found)
            logger.info("policies read again: %s", ", ".join(sorted(self._policies)))
        self.changed(self.problem)

    def _look(self) -> Signature:
        """What tells whether a file was edited, added or removed."""
        found: list[tuple[str, int, int, int]] = []
        for folder in self._folders:
            try:
                entries = [path for path in folder.iterdir() if path.suffix in (SUFFIX, ".yml")]
                entries += (folder / LOCKS).glob("*.txt")
                for path in sorted(entries):
                    stat = path.stat()
                    found.append((str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino))
            except OSError:
                found.append((str(folder), 0, 0, 0))
        return tuple(found)
