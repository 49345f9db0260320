"""A kernel of a session of a controller in this process."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio

from sandbox.audit import recorded
from sandbox.cli.wiring import controller
from sandbox.config import load
from sandbox.errors import Conflict, NotFound
from sandbox.jupyter.composing import Composer
from sandbox.jupyter.kernelconfig import KernelConfig
from sandbox.jupyter.sandboxedkernel import Ended, Heard, Missed, Said
from sandbox.jupyter.signing import JupyterMessage
from sandbox.kernels.events import LoggedMessage
from sandbox.kernels.kernels import DEFAULT_KERNEL_ID, DEFAULT_KERNEL_NAME
from sandbox.link import wire
from sandbox.outputs.denials import denial_line
from sandbox.server.grants import LOCAL
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session

CLOSE_S = 30.0


@asynccontextmanager
async def local_kernel(config: KernelConfig, composer: Composer) -> AsyncGenerator[LocalKernel]:
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
                yield LocalKernel(session, kernel_id, composer)
        finally:
            with anyio.move_on_after(CLOSE_S, shield=True), suppress(NotFound):
                await manager.close(Caller(LOCAL), session.session_id)


async def _copy_in(session: Session, paths: tuple[str, ...]) -> None:
    from sandbox.cli.hostfiles import Outgoing, name_inside
    from sandbox.cli.localaccess import LocalAccess
    from sandbox.cli.transfers import copy_in

    outgoing = Outgoing()
    for path in map(Path, paths):
        outgoing.add(path, name_inside(path))
    await copy_in(LocalAccess(session), outgoing)


async def _start(session: Session, name: str) -> str:
    """Start the kernel of a kernelspec, or wait for the one that a session starts by itself."""
    if name != DEFAULT_KERNEL_NAME:
        return (await session.kernels.start(name)).kernel_id
    try:
        await session.kernels.start(kernel_id=DEFAULT_KERNEL_ID)
    except Conflict:
        await session.kernels._ready(DEFAULT_KERNEL_ID)
    return DEFAULT_KERNEL_ID


class LocalKernel:
    """A kernel of a session of a controller in this process."""

    def __init__(self, session: Session, kernel_id: str, composer: Composer) -> None:
        self.session_id = session.session_id
        self._session = session
        self._kernel_id = kernel_id
        self._composer = composer
        self._events = session.kernels.events(kernel_id)
        self._position = self._events.log.end
        self._denials = session.network.denials
        self._told = self._denials.mark()

    async def send(self, message: JupyterMessage) -> None:
        kernel = self._session.kernels._kernels[self._kernel_id]
        parts = [message.header, message.parent_header, message.metadata, message.content]
        head = wire.encode_json({"channel": message.channel})
        await kernel._link.send(wire.pack_parts([head, b"", *parts, *message.buffers]))

    async def heard(self) -> AsyncIterator[Heard]:
        async for got in self._events.follow(self._position):
            if got.missed:
                yield Missed(got.missed)
            for logged in got.entries:
                if logged.channel != "event":
                    if logged.msg_type:
                        yield self._said(logged)
                elif logged.msg_type == "exited" and not logged.content.get("killed_by_us"):
                    yield await self._ended(logged)
        yield Ended("The session has ended.", 1, is_for_good=True)

    async def interrupt(self) -> None:
        await self._session.kernels._kernels[self._kernel_id]._link.call("kernel.interrupt")

    async def restart(self) -> None:
        await self._session.kernels.restart(self._kernel_id)

    def denials(self) -> tuple[str, ...]:
        since, self._told = self._told, self._denials.mark()
        return tuple(map(denial_line, self._denials.since(since)))

    def _said(self, logged: LoggedMessage) -> Said:
        header = self._composer.header(logged.msg_type, logged.msg_id)
        parent = b'{"msg_id": "%s"}' % logged.parent_id.encode()
        message = JupyterMessage(
            logged.channel,
            header,
            parent,
            logged.metadata_json,
            logged.content_json,
            logged.buffers,
        )
        return Said(message, logged.parent_id)

    async def _ended(self, logged: LoggedMessage) -> Ended:
        reason = None
        with anyio.move_on_after(5):
            while not reason:
                reason = next(
                    k.reason for k in self._session.kernels.infos if k.kernel_id == self._kernel_id
                )
                await anyio.sleep(0.01)
        code = logged.content.get("signal")
        return Ended(reason or "", -code if code else logged.content.get("exit_code") or 1)
