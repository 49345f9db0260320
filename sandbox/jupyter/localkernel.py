"""A kernel of a session of a controller in this process."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio

from sandbox.audit import recorded
from sandbox.cli.wiring import controller
from sandbox.config import load
from sandbox.errors import Conflict, NotFound
from sandbox.jupyter.kernelconfig import KernelConfig
from sandbox.jupyter.sandboxedkernel import Ended, is_death
from sandbox.kernels.conversation import Conversation, converse
from sandbox.kernels.jupytermessages import JupyterMessage
from sandbox.kernels.kernels import DEFAULT_KERNEL_ID, DEFAULT_KERNEL_NAME
from sandbox.outputs.denials import denial_line
from sandbox.server.grants import LOCAL
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session

CLOSE_S = 30.0
VERDICT_S = 5.0
"""So long it may take to know why a kernel has died."""
POLL_S = 0.01


@asynccontextmanager
async def local_kernel(config: KernelConfig) -> AsyncGenerator[LocalKernel]:
    """A kernel that answers, in a session of a controller of its own, which ends with it.

    Raises:
        SandboxError: It could not be started; nothing is left of it.
    """
    settings = load(env=os.environ).settings
    async with controller(settings, "run") as manager:
        with recorded(manager.audit, "cli", "kernel provisioner", config.data(), LOCAL):
            manager.audit.require()
            session = await manager.open(Caller(LOCAL), policy=config.policy, reuse=False)
        try:
            async with session.use():
                if config.with_:
                    await _copy_in(session, config.with_)
                kernel_id = await _start(session, config.kernel)
                async with converse(session.kernels, kernel_id) as conversation:
                    yield LocalKernel(session, kernel_id, conversation)
        finally:
            with anyio.move_on_after(CLOSE_S, shield=True), suppress(NotFound):
                await manager.close(Caller(LOCAL), session.session_id)


async def _copy_in(session: Session, paths: tuple[str, ...]) -> None:
    from sandbox.cli.hostfiles import Outgoing
    from sandbox.cli.localaccess import LocalAccess
    from sandbox.cli.transfers import copy_in

    outgoing = Outgoing()
    for path in map(Path, paths):
        outgoing.add(path, path.name)
    await copy_in(LocalAccess(session), outgoing)


async def _start(session: Session, name: str) -> str:
    """Start the kernel of a kernelspec, or wait for the one that a session starts by itself."""
    if name != DEFAULT_KERNEL_NAME:
        return (await session.kernels.start(name)).kernel_id
    try:
        await session.kernels.start(kernel_id=DEFAULT_KERNEL_ID)
    except Conflict:
        await session.kernels.kernel(DEFAULT_KERNEL_ID).wait_ready()
    return DEFAULT_KERNEL_ID


class LocalKernel:
    """A kernel of a session of a controller in this process."""

    def __init__(self, session: Session, kernel_id: str, conversation: Conversation) -> None:
        self.session_id = session.session_id
        self._kernels = session.kernels
        self._kernel = session.kernels.kernel(kernel_id)
        self._conversation = conversation
        self._denials = session.network.denials
        self._told = self._denials.mark()

    async def send(self, message: JupyterMessage) -> None:
        """Take a message of a client."""
        await self._conversation.send(message)

    async def heard(self) -> AsyncGenerator[JupyterMessage | Ended]:
        """What it says."""
        async for message in self._conversation.messages():
            if is_death(message) and (reason := await self._death()):
                yield Ended(reason)
            else:
                yield message
        reason = self._kernel.info().reason
        yield Ended(reason or "Its session has ended.", is_for_good=True)

    async def interrupt(self) -> None:
        """Interrupt what it runs."""
        await self._kernels.interrupt(self._kernel.kernel_id)

    async def restart(self) -> None:
        """Start it anew."""
        await self._kernels.restart(self._kernel.kernel_id)

    def denials(self) -> tuple[str, ...]:
        """What its network was refused since this was asked last."""
        since, self._told = self._told, self._denials.mark()
        return tuple(map(denial_line, self._denials.since(since)))

    async def _death(self) -> str:
        """Why it died; empty when it has not, and only its own code says so."""
        with anyio.move_on_after(VERDICT_S):
            while self._kernel.info().state != "dead":  # noqa: ASYNC110  # a moment, once
                await anyio.sleep(POLL_S)
        return self._kernel.info().reason or ""
