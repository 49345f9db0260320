"""Stopping a container that has nothing to do, and letting it go on before anything is sent to it.

Whoever uses the link of a frozen container need not know that it is frozen: its bytes pass here,
and the first one lets the container go on. So nothing waits for an answer from one that is stopped,
and no time-out of anybody's runs out because of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import NoReturn

import anyio

from sandbox.errors import Conflict, SandboxError, SessionLost
from sandbox.link.link import ByteStream
from sandbox.runtimes.base import ContainerRuntime

SILENT_S = 4.0
"""When nothing has come for so long since something was sent, somebody else may have stopped it."""

logger = logging.getLogger(__name__)


class Freezer:
    """The way into one container, and whether that is frozen as far as we know: of this controller
    only this stops it.

    Args:
        turn: A place among those who call the engine.
        told: Called before the container is stopped (True) and once it goes on (False).
        clock: Unix time, seconds.
    """

    def __init__(
        self,
        runtime: ContainerRuntime,
        turn: Callable[[], AbstractAsyncContextManager[None]],
        told: Callable[[bool], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.frozen_since: float | None = None
        """Unix time since which it is frozen, or about to be; None while it runs."""
        self.is_claimed = False
        """Whether somebody has it; to whom it is to be given, it has to answer by itself."""
        self._runtime = runtime
        self._turn = turn
        self._told = told
        self._clock = clock
        self._container_id = ""
        self._changing = anyio.Lock()
        self._is_over = False
        self._sent, self._has_heard = anyio.Event(), False

    @property
    def is_frozen(self) -> bool:
        """Whether it is stopped, or about to be."""
        return self.frozen_since is not None

    async def connect(self, container_id: str) -> ByteStream:
        """Connect to the container, which goes on if it is frozen, or whenever something is sent.

        Raises:
            SessionLost: The container is gone or does not run.
        """
        await self.thaw()
        self._container_id = container_id
        async with self._turn():
            try:
                stream = await self._runtime.connect(container_id)
            except Conflict:  # somebody else has paused it, and it is to be used
                await self._runtime.unpause(container_id)
                stream = await self._runtime.connect(container_id)
        return _Passing(stream, self)

    async def freeze(self, may: Callable[[], bool]) -> bool:
        """Stop all that is in the container until something is sent to it or :meth:`thaw` is
        called; whether that is so now.

        Args:
            may: Asked at the last moment; from then on whoever sends something waits.

        Raises:
            SandboxError: The engine did not do it; the container goes on.
        """
        async with self._changing:
            if self.is_frozen or self._is_over or not may():
                return self.is_frozen
            self.frozen_since = self._clock()
            self._told(True)
            with anyio.CancelScope(shield=True):
                try:
                    async with self._turn():
                        await self._runtime.pause(self._container_id)
                except SandboxError:
                    # It may be stopped all the same; if this fails too, the next use tries again.
                    with suppress(SandboxError):
                        await self._go_on()
                    raise
            return True

    async def thaw(self) -> None:
        """Let the container go on; returns at once when it does.

        Raises:
            SandboxError: The engine did not do it; the container is still frozen.
        """
        if not self.is_frozen:
            return
        async with self._changing:
            if self.is_frozen and not self._is_over:
                with anyio.CancelScope(shield=True):
                    await self._go_on()

    async def watch(self) -> NoReturn:
        """While its link is used, let the container go on whenever somebody else has stopped it."""
        while True:
            await self._sent.wait()
            self._sent, self._has_heard = anyio.Event(), False
            await anyio.sleep(SILENT_S)
            if self.is_claimed and not (self._has_heard or self.is_frozen or self._is_over):
                try:
                    await self._go_on_if_paused()
                except SandboxError as exc:
                    logger.info("container %.12s is silent: %s", self._container_id, exc)

    def sent(self) -> None:
        """Note that something was sent, which will be answered."""
        self._sent.set()

    def heard(self) -> None:
        """Note that something came."""
        self._has_heard = True

    def give_up(self) -> None:
        """Leave it as it is from now on: it is removed, or somebody else's affair."""
        self._is_over = True

    async def _go_on_if_paused(self) -> None:
        async with self._turn():
            info = await self._runtime.inspect(self._container_id)
        if info.state != "paused":
            return
        async with self._changing:
            if not (self.is_frozen or self._is_over):
                logger.warning(
                    "container %.12s was paused by somebody else, and is used: it goes on",
                    self._container_id,
                )
                await self._go_on()

    async def _go_on(self) -> None:
        async with self._turn():
            with suppress(SessionLost):  # it has ended, and so will its link
                await self._runtime.unpause(self._container_id)
        self.frozen_since = None
        self._told(False)


class _Passing:
    """A stream into the container, which goes on before anything is written."""

    def __init__(self, stream: ByteStream, freezer: Freezer) -> None:
        self._stream = stream
        self._freezer = freezer

    async def read(self) -> bytes:
        data = await self._stream.read()
        self._freezer.heard()
        return data

    async def write(self, data: bytes) -> None:
        await self._freezer.thaw()
        await self._stream.write(data)
        self._freezer.sent()

    async def close(self) -> None:
        await self._stream.close()
