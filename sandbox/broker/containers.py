"""Which containers are the broker's: those with its mark, a label that it alone gives."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sandbox.container.labels import LABEL_BROKER, LABEL_UID
from sandbox.errors import Conflict, QuotaExceeded
from sandbox.runtimes.base import ContainerInfo, ContainerRuntime


class OwnContainers:
    """The containers that a broker made. The engine knows them; what is kept here saves asking.

    Labels never change and ids are never given twice, so what was the broker's once stays so.
    """

    def __init__(self, runtime: ContainerRuntime, mark: str, limit: int) -> None:
        self._runtime = runtime
        self._limit = limit
        self._uids: dict[str, int] = {}
        self._is_counted = False
        self._coming: set[int] = set()
        self.mark = mark

    async def owns(self, container_id: str) -> bool:
        """Whether there is such a container and it is the broker's."""
        if container_id not in self._uids:
            info = await self._runtime.inspect(container_id)
            if not self.marked(info):
                return False
            self._uids[info.id] = int(info.labels[LABEL_UID])
        return True

    def marked(self, info: ContainerInfo) -> bool:
        """Whether a container is the broker's."""
        return info.labels.get(LABEL_BROKER) == self.mark

    async def list(self, labels: dict[str, str]) -> list[ContainerInfo]:
        """The broker's containers that carry all these labels."""
        return await self._runtime.list({**labels, LABEL_BROKER: self.mark})

    @asynccontextmanager
    async def place(self, uid: int) -> AsyncGenerator[None]:
        """Hold a place for a container of this uid until it is entered, or is not to be.

        Raises:
            QuotaExceeded: There are as many containers as may be.
            Conflict: Another one has the uid, and what Linux counts by uid would be shared.
        """
        if not self._is_counted or self._is_full() or self._is_taken(uid):
            await self._recount()
        if self._is_full():
            raise QuotaExceeded(
                f"The broker has as many containers as it may have ({self._limit}).",
                remedy="Try again when some sessions have ended, or raise its max_sessions.",
            )
        if self._is_taken(uid):
            raise Conflict("Another container has this uid.")
        self._coming.add(uid)
        try:
            yield
        finally:
            self._coming.discard(uid)

    def enter(self, container_id: str, uid: int) -> None:
        """Note a new container."""
        self._uids[container_id] = uid

    def strike(self, container_id: str) -> None:
        """Note that a container is gone."""
        self._uids.pop(container_id, None)

    def _is_full(self) -> bool:
        return len(self._uids) + len(self._coming) >= self._limit

    def _is_taken(self, uid: int) -> bool:
        return uid in self._coming or uid in self._uids.values()

    async def _recount(self) -> None:
        before = set(self._uids)
        there = {info.id: int(info.labels[LABEL_UID]) for info in await self.list({})}
        # What was entered while the engine was asked may not be in its answer.
        since = {each: uid for each, uid in self._uids.items() if each not in before}
        self._uids = there | since
        self._is_counted = True
