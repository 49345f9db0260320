"""One kernel of a Jupyter Server as a link sees it: numbered messages, and what happens to it.

People use the same kernel from JupyterLab. So what we ask waits while a cell of somebody else's
runs, an interrupt of ours reaches our cell only, and what others do to the kernel, restart it or
shut it down, is noticed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.manager import KernelManager
from jupyter_client.session import Session
from jupyter_core.utils import ensure_async

from sandbox.errors import Conflict, InfrastructureError
from sandbox.jupyter.kernelwire import aborted, bounded, header_of, name_in, opened, packed, sealed
from sandbox.link import wire
from sandbox.outputs.eventlog import EventLog

KEPT_BYTES = 32 * 1024 * 1024
ENTRY_BYTES = 256
NUDGE_S = 0.25
WATCH_S = 0.5
"""Between two looks at whether the kernel's process is the same and lives."""
MAX_WAITING = 256
"""Requests of ours that wait for somebody else's cell."""

logger = logging.getLogger(__name__)


class ServerKernel:
    """A kernel that a Jupyter Server runs; :meth:`live` must be running.

    Args:
        kernel_id: How we name it.
        is_there: Whether the server still has the kernel of an id.
        changed: Called when others have restarted it or shut it down, or it died.
    """

    def __init__(
        self,
        kernel_id: str,
        jupyter_id: str,
        manager: KernelManager,
        is_there: Callable[[str], bool],
        changed: Callable[[], None],
    ) -> None:
        self.kernel_id = kernel_id
        self.jupyter_id = jupyter_id
        self.name = str(manager.kernel_name)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]  # its types are incomplete
        self.manager = manager
        self.was_used = False
        """Whether it was ever given a cell of ours."""
        self.was_replaced = False
        """Whether somebody else has restarted it since, which nobody of ours was told yet."""
        self.epoch = 1
        self.is_alive = True
        self.log: EventLog[bytes] = EventLog(KEPT_BYTES, lambda data: len(data) + ENTRY_BYTES)
        self.is_ours = False
        """Whether what happens to its process is our doing, and no news."""
        self._is_there = is_there
        self._changed = changed
        self._client: AsyncKernelClient | None = None
        self._heard = asyncio.Event()
        """Set when what it publishes is heard: what it published before is lost."""
        self._pid = self._process_id()
        self._running = ""
        """The request that the kernel works at, if that is a cell; whosever."""
        self._sent = ""
        """Our cell that was sent and has no end yet."""
        self._interrupt_due = False
        self._waiting: deque[list[bytes]] = deque()

    def describe(self) -> dict[str, Any]:
        """Its entry in ``kernel.list``."""
        return {
            "kernel_id": self.kernel_id,
            "name": self.name,
            "pid": 0,
            "epoch": self.epoch,
            "alive": self.is_alive,
            "last_seq": self.log.end,
            "first_seq": self.log.first + 1,
        }

    # --- its life

    async def live(self) -> None:
        """Read what it says and watch its process, until the server has it no more."""
        client = self._connect()
        sockets = {"iopub": client.iopub_channel, "shell": client.shell_channel}
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = [
                    tasks.create_task(self._read(client, channel, found.socket))
                    for channel, found in sockets.items()
                ]
                reading.append(tasks.create_task(self._nudge(client)))
                await self._watch()
                for task in reading:
                    task.cancel()
        finally:
            self._client = None
            self._heard.clear()
            client.stop_channels()

    def gone(self) -> None:
        """The server has it no more."""
        if self.is_alive:
            self.is_alive = False
            self._append("event", [wire.encode_json({"event": "exited"})])

    def replaced(self, jupyter_id: str, manager: KernelManager) -> None:
        """Another kernel of the server takes its place, of which it is a restart."""
        self.jupyter_id, self.manager = jupyter_id, manager
        self.was_replaced = False
        self.entered()

    def entered(self) -> None:
        """It has a new process."""
        self.epoch += 1
        self.is_alive = True
        self._pid = self._process_id()
        self._running = self._sent = ""
        self._interrupt_due = False
        self._waiting.clear()

    async def _watch(self) -> None:
        own = self.jupyter_id
        while self._is_there(own):
            await asyncio.sleep(WATCH_S)
            if self.is_ours:
                continue
            await self._look()
            if self._waiting and getattr(self.manager, "execution_state", "") == "idle":
                self._running = ""  # its end was lost on the way
                await self._send_on()
        if not self.is_ours:
            self.gone()
            self._changed()

    async def _look(self) -> None:
        """Note what somebody else did to the process."""
        provisioner = self.manager.provisioner
        if provisioner is None or not provisioner.has_process:
            return
        code = await provisioner.poll()
        if self.is_ours or self.manager.shutting_down or self.manager.provisioner is None:
            return
        if code is not None and self.is_alive:
            self.is_alive = False
            event = {"event": "exited", "killed_by_us": False, **_ending(code)}
            self._append("event", [wire.encode_json(event)])
            self._changed()
        elif code is None and self._process_id() != self._pid:
            self.was_replaced = self.was_used
            self.entered()
            self._changed()

    def _process_id(self) -> object:
        """What tells one process of the kernel from the next."""
        provisioner = self.manager.provisioner
        pid = getattr(provisioner, "pid", None)
        return pid if pid is not None else id(getattr(provisioner, "process", None))

    # --- messages

    def _connect(self) -> AsyncKernelClient:
        client = self.manager.client()
        is_known = isinstance(client, AsyncKernelClient)
        if not is_known or not issubclass(client.iopub_channel_class, AsyncZMQSocketChannel):
            raise InfrastructureError(
                f"The kernel {self.kernel_id} is not spoken to over ZeroMQ, as those of a gateway."
            )
        # Its own, for a kernel tells clients apart by their sessions: the manager's is others' too.
        known = self.manager.session
        client.session = Session(key=known.key, signature_scheme=known.signature_scheme)
        client.start_channels(shell=True, iopub=True, stdin=False, hb=False, control=False)  # noqa: S604  # a channel, no shell
        self._client = client
        return client

    async def _read(self, client: AsyncKernelClient, channel: str, socket: Any) -> None:
        while True:
            frames: list[bytes] = await socket.recv_multipart()
            parts = opened(client.session, frames)
            if parts is None:
                logger.warning("kernel %s: a message without a valid signature", self.kernel_id)
                continue
            self._take(channel, parts)
            if channel == "iopub":
                self._heard.set()
                await self._heed(parts)

    async def _nudge(self, client: AsyncKernelClient) -> None:
        """Have it publish something until that is heard, and only then ask for anything."""
        socket: Any = client.shell_channel.socket
        make = cast("Callable[[str], dict[str, Any]]", client.session.msg)  # pyright: ignore[reportUnknownMemberType]  # its types are incomplete
        while not self._heard.is_set():
            await socket.send_multipart(client.session.serialize(make("kernel_info_request")))
            with suppress(TimeoutError):
                async with asyncio.timeout(NUDGE_S):
                    await self._heard.wait()
        await self._send_on()

    def _take(self, channel: str, parts: list[bytes]) -> None:
        found = bounded(parts)
        if isinstance(found, dict):
            self._append("event", [wire.encode_json(found)])
            return
        for piece in found:
            self._append(channel, piece)

    def _append(self, channel: str, parts: Sequence[bytes]) -> None:
        self.log.append(packed(self.log.end + 1, self.epoch, channel, parts))

    async def _heed(self, parts: list[bytes]) -> None:
        """Keep note of which cell runs, and do what waits for that."""
        header = header_of(parts) if len(parts[1]) < 4096 else {}
        if header.get("msg_type") != "status":
            return
        parent = header_of(parts, 2)
        asked = name_in(parent, "msg_id")
        state = header_of(parts, 4).get("execution_state")
        if state == "busy" and parent.get("msg_type") == "execute_request":
            self._running = asked
            if asked == self._sent and self._interrupt_due:
                self._interrupt_due = False
                await ensure_async(self.manager.interrupt_kernel())
        elif state == "idle" and asked == self._running:
            self._running = ""
            if asked == self._sent:
                self._sent = ""
                self._interrupt_due = False
            await self._send_on()

    async def send(self, parts: list[bytes]) -> None:
        """Send a request, when no cell of somebody else's runs.

        Raises:
            Conflict: Too many wait already.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise Conflict("The kernel has not answered earlier questions.")
        self._waiting.append(parts)
        await self._send_on()

    async def _send_on(self) -> None:
        while self._waiting and self._client is not None and self._heard.is_set():
            header = header_of(self._waiting[0])
            if header.get("msg_type") == "execute_request":
                if self._running and self._running != self._sent:
                    return
                self._sent = name_in(header, "msg_id")
                self.was_used = True
            parts = self._waiting.popleft()
            frames = sealed(self._client.session, parts)
            socket: Any = self._client.shell_channel.socket
            await socket.send_multipart(frames)

    async def interrupt(self) -> None:
        """Interrupt our cell, and nobody else's: it is taken back where it has not reached the
        kernel, and interrupted when it begins where it waits there."""
        for parts in tuple(self._waiting):
            header = header_of(parts)
            if header.get("msg_type") == "execute_request":
                self._waiting.remove(parts)
                reply, idle = aborted(parts)
                self._append("shell", reply)
                self._append("iopub", idle)
                await self._send_on()
                return
        if not self._sent:
            return
        if self._running == self._sent:
            await ensure_async(self.manager.interrupt_kernel())
        else:
            self._interrupt_due = True


def _ending(code: int) -> dict[str, Any]:
    return {"exit_code": None, "signal": -code} if code < 0 else {"exit_code": code, "signal": None}
