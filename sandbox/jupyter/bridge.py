"""``python -m sandbox.jupyter.bridge FD``: a kernel's process, as Jupyter sees it.

It is started by the provisioner, which speaks to it over the socket ``FD``. It opens a session,
owns the kernel's ZeroMQ sockets, and carries messages between both. It lives as long as the
provisioner does: whatever happens to that, the session is closed.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, cast

import anyio
from anyio.abc import TaskGroup

from sandbox.errorgroups import one_error
from sandbox.errors import InvalidRequest, SandboxError
from sandbox.jupyter.connection import Connection
from sandbox.jupyter.control import Control
from sandbox.jupyter.kernelconfig import KernelConfig
from sandbox.jupyter.relay import Relay
from sandbox.jupyter.sandboxedkernel import SandboxedKernel
from sandbox.jupyter.sockets import ClientSockets

END_S = 60
"""So long the removal of what was opened may take; then the process ends without it."""
KILLED = -9
FAILED = 1
UNPROVISIONED = (
    "sandbox: This kernel runs in a sandbox only where its client knows kernel provisioners: "
    "jupyter_client 7 or later, in an environment that has this package. Nothing was run."
)

logger = logging.getLogger(__name__)


class Bridge:
    """One session, and the kernel in it, for one provisioner.

    Args:
        tasks: Where it works; they are cancelled when the provisioner has gone.
    """

    def __init__(self, control: Control, tasks: TaskGroup) -> None:
        self._control = control
        self._tasks = tasks
        self._kernel: SandboxedKernel | None = None
        self._relay: Relay | None = None
        self._info: Mapping[str, Any] = {}
        self._sockets: ClientSockets | None = None
        self._serving = anyio.CancelScope()
        self._finished = anyio.Event()

    async def run(self, order: Mapping[str, Any]) -> None:
        """Open the session and serve the kernel, until a client shuts it down.

        Raises:
            SandboxError: It could not be opened, or has ended.
        """
        config = _config(order)
        sockets = self._bind(order)
        # Imported now: it takes a while, and might have been in vain.
        if config.url:
            from sandbox.jupyter.servedkernel import served_kernel as opened
        else:
            from sandbox.jupyter.localkernel import local_kernel as opened

        async with opened(config) as kernel:
            self._kernel = kernel
            self._relay = Relay(kernel, sockets, self._ended, self._finished.set)
            self._serve(sockets, self._relay)
            async with one_error() as tasks:
                tasks.start_soon(self._listen, self._relay)
                self._control.tell("started", session_id=kernel.session_id)
                gc.freeze()
                gc.enable()
                await self._finished.wait()
                tasks.cancel_scope.cancel()

    async def end_in_time(self) -> None:
        """Have the system end this process if it hangs in its own end, when nobody else may be
        there to do so."""
        try:
            await self._finished.wait()
        finally:
            signal.alarm(END_S)

    async def take(self, order: Mapping[str, Any]) -> None:
        """Do something more that the provisioner wants."""
        if self._relay is None or self._kernel is None:
            if order.get("do") == "kill":
                self._tasks.cancel_scope.cancel()
            return
        match order.get("do"):
            case "start":
                self._tasks.start_soon(self._restart, self._relay, self._kernel, order)
            case "interrupt":
                self._tasks.start_soon(self._interrupt, self._kernel)
            case "kill":
                self._relay.end(KILLED)
            case _:
                logger.warning("the provisioner wants %r", order.get("do"))

    async def _listen(self, relay: Relay) -> None:
        await relay.listen()
        self._finished.set()

    async def _restart(
        self, relay: Relay, kernel: SandboxedKernel, order: Mapping[str, Any]
    ) -> None:
        try:
            if order.get("connection") != self._info:
                self._serve(self._bind(order), relay)
            await kernel.restart()
        except SandboxError as exc:
            self._control.tell("failed", reason=str(exc))
        else:
            relay.begin()
            self._control.tell("started", session_id=kernel.session_id)

    async def _interrupt(self, kernel: SandboxedKernel) -> None:
        try:
            await kernel.interrupt()
        except SandboxError as exc:
            relay = self._relay  # Jupyter interrupts whatever it shuts down or restarts
            if relay is not None and relay.is_alive:
                logger.warning("the kernel cannot be interrupted: %s", exc)

    def _bind(self, order: Mapping[str, Any]) -> ClientSockets:
        """Bind the sockets of a connection, in the place of those before."""
        self.close()
        info: object = order.get("connection")
        if not isinstance(info, dict):
            raise InvalidRequest("The provisioner names no connection.")
        self._info = cast("dict[str, Any]", info)
        connection = Connection.of(self._info)
        self._sockets = ClientSockets(connection)
        return self._sockets

    def _serve(self, sockets: ClientSockets, relay: Relay) -> None:
        relay.sockets = sockets
        scope = self._serving = anyio.CancelScope()

        async def serve() -> None:
            with scope:
                await sockets.serve(relay.take, relay.alive)

        self._tasks.start_soon(serve)

    def close(self) -> None:
        """Let go of the sockets."""
        self._serving.cancel()
        if self._sockets is not None:
            self._sockets.close()

    def _ended(self, code: int, reason: str) -> None:
        if reason:
            print(f"sandbox: The kernel died. {reason}", file=sys.stderr, flush=True)
        self._control.tell("ended", code=code, reason=reason)


def _config(order: Mapping[str, Any]) -> KernelConfig:
    try:
        return KernelConfig.of(order.get("config") or {})
    except ValueError as exc:
        raise InvalidRequest(f"kernel_provisioner: config: {exc}") from exc


async def serve(end: socket.socket) -> int:
    """Serve the provisioner at the other end; returns the exit code."""
    control = Control(end)
    async with aclosing(control.orders()) as orders:
        order = await anext(orders, None)
        if order is None:
            return 0
        try:
            async with one_error() as tasks:
                bridge = Bridge(control, tasks)
                tasks.start_soon(bridge.end_in_time)
                tasks.start_soon(_end_with_parent, tasks)
                tasks.start_soon(_heed_signals, bridge, tasks)

                async def run() -> None:
                    try:
                        await bridge.run(order)
                    finally:
                        bridge.close()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(run)
                async for each in orders:
                    await bridge.take(each)
                tasks.cancel_scope.cancel()
        except SandboxError as exc:
            control.tell("failed", reason=str(exc))
            print(f"sandbox: {exc}", file=sys.stderr, flush=True)
            return FAILED
    return 0


async def _end_with_parent(tasks: TaskGroup) -> None:
    """End with the client: a process that it forked may still hold its end of the socket."""
    try:
        parent = os.pidfd_open(os.getppid())
    except (AttributeError, OSError):  # not Linux, or it has gone, which the socket says
        return
    try:
        await anyio.wait_readable(parent)
    finally:
        os.close(parent)
    tasks.cancel_scope.cancel()


async def _heed_signals(bridge: Bridge, tasks: TaskGroup) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async for number in signals:
            if number == signal.SIGINT:
                await bridge.take({"do": "interrupt"})
            else:
                tasks.cancel_scope.cancel()


def main() -> None:
    """Serve the provisioner whose socket is named."""
    logging.basicConfig(level=logging.WARNING, format="sandbox: %(message)s", stream=sys.stderr)
    code = FAILED
    gc.disable()  # until the kernel answers: all that is imported stays, and is not to be searched
    try:
        match sys.argv[1:]:
            case [fd]:
                code = anyio.run(serve, socket.socket(fileno=int(fd)))
            case _:
                print(UNPROVISIONED, file=sys.stderr)
    except BaseException:  # the outermost edge: after this nothing is said any more
        logger.exception("the bridge failed")
    finally:
        sys.stderr.flush()
        os._exit(code)  # nothing is left to be done, and taking all modules apart takes a while


if __name__ == "__main__":
    main()
