"""The checkpoints of one kernel: frozen copies of it, which its supervisor keeps.

What there is, the supervisor says; what is remembered here of that is for counting and naming, and
read anew after each new controller, and whenever somebody asks for the list.
"""

from __future__ import annotations

import re

from sandbox.answers import parse
from sandbox.errors import NotFound
from sandbox.kernels.answers import FilesKept, Frozen, FrozenListing
from sandbox.kernels.attachment import Attachment
from sandbox.kernels.models import Checkpoint, KeptCheckpoint

AUTO = "auto-"
"""What the names of those begin with that are made before cells."""
_NUMBERED = re.compile(rf"{AUTO}(\d{{1,9}})")


class Checkpoints:
    """Those of one kernel, oldest first."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._known: dict[str, Checkpoint] = {}
        self._counts: dict[str, int] = {}
        """The kernel's number of the last cell before each of which that is known."""
        self._is_read = False

    def __len__(self) -> int:
        return len(self._known)

    @property
    def latest(self) -> str:
        """The name of the one made last; empty when there is none."""
        return next((name for name, kept in reversed(self._known.items()) if kept.alive), "")

    @property
    def of_cells(self) -> list[Checkpoint]:
        """Those that were made before cells."""
        return [kept for name, kept in self._known.items() if name.startswith(AUTO)]

    def count_of(self, name: str) -> int:
        """The number of the last cell before one; 0 when it is not known."""
        numbered = _NUMBERED.fullmatch(name)
        return self._counts.get(name, int(numbered[1]) - 1 if numbered else 0)

    def next_number(self, count: int) -> int:
        """The number of the cell that comes next, after so many or, when that is not known, after
        all that there is a checkpoint of."""
        found = (_NUMBERED.fullmatch(name) for name in self._known)
        return 1 + (count or max((int(each[1]) for each in found if each), default=0))

    def doubt(self) -> None:
        """One was lost: what there is must be read anew before it counts."""
        self._is_read = False

    @property
    def is_doubted(self) -> bool:
        """Whether they must be."""
        return not self._is_read

    async def known(self) -> dict[str, Checkpoint]:
        """Those that there are as far as is known, by name."""
        return self._known if self._is_read else await self.read()

    async def read(self) -> dict[str, Checkpoint]:
        """Those that there are now, by name.

        Raises:
            ProtocolError: The supervisor's list makes no sense.
            SandboxError: It does not tell.
        """
        told = parse(FrozenListing, await self._attachment.call("kernel.checkpoints")).checkpoints
        told.sort(key=lambda each: each.created_at)
        self._known = {each.name: _checkpoint(each) for each in told}
        self._counts = {name: self._counts[name] for name in self._known if name in self._counts}
        self._is_read = True
        return self._known

    async def make(
        self, name: str, count: int, *, files: bool = False, auto: bool = False
    ) -> KeptCheckpoint:
        """Freeze a copy of the kernel, which runs nothing; ``count`` cells came before.

        Raises:
            Conflict: The kernel cannot be copied, or there is one of that name.
            ProtocolError: The supervisor's answer makes no sense.
        """
        asked = {"name": name, "files": files, "auto": auto}
        answer = await self._attachment.call("kernel.checkpoint", **asked)
        told = _checkpoint(parse(Frozen, answer)).model_copy(update={"name": name})
        self._known[name] = told
        made = KeptCheckpoint(**told.model_dump(), notes=parse(FilesKept, answer).notes())
        self._counts[name] = count
        return made

    async def drop(self, name: str) -> None:
        """Let one go.

        Raises:
            NotFound: There is none.
        """
        try:
            await self._attachment.call("kernel.drop_checkpoint", name=name)
        except NotFound:
            self._known.pop(name, None)
            raise
        self._known.pop(name, None)
        self._counts.pop(name, None)


def _checkpoint(told: Frozen) -> Checkpoint:
    return Checkpoint(**told.model_dump())
