"""The provisioner of Jupyter's kernels: ``sandbox``, in ``jupyter_client.kernel_provisioners``.

Whoever starts a kernel whose kernelspec names it gets one in a sandbox. Clients notice nothing: a
bridge, a process of this machine, stands where the kernel's would be, at the ports of the
connection file. One bridge holds one session, over restarts of the kernel, until the client is
done or gone.
"""

from __future__ import annotations

import os
import signal
from typing import Any, cast

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from sandbox.jupyter.bridgeprocess import BridgeProcess
from sandbox.jupyter.kernelconfig import KernelConfig

START_TIMEOUT_S = 180.0
END_TIMEOUT_S = 30.0
SHUTDOWN_WAIT_S = 1.0
KILL_WAIT_S = 3.0
_OUTLETS = ("stdout", "stderr")


class KernelNotStarted(RuntimeError):
    """The sandbox, or the kernel in it, could not be started; nothing is left of it."""


class SandboxProvisioner(LocalProvisioner):
    """Starts a kernel in a sandbox, and is what a kernel manager has in its process's place."""

    def __init__(self, **given: Any) -> None:
        # The factory hands over what stands in the kernelspec beside its own three.
        own = {
            key: given.pop(key) for key in ("kernel_id", "kernel_spec", "parent") if key in given
        }
        super().__init__(**own)
        try:
            self._config = KernelConfig.of(given)
        except ValueError as exc:
            name = getattr(own.get("kernel_spec"), "display_name", "")
            raise ValueError(f"The kernelspec {name!r}: kernel_provisioner: config: {exc}") from exc
        self._bridge: BridgeProcess | None = None
        self._has_kernel = False
        self.session_id = ""

    @property
    def has_process(self) -> bool:
        """Whether there is a kernel, or one whose end was not waited for."""
        return self._has_kernel

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start a kernel: in the session that there is, or in one that is opened for it.

        The command of the kernelspec is never run.

        Raises:
            KernelNotStarted: It could not be; says why.
        """
        bridge = self._bridge
        if bridge is not None and bridge.is_over:
            bridge = self._bridge = None
        if bridge is None:
            outlets = {name: kwargs[name] for name in _OUTLETS if kwargs.get(name) is not None}
            bridge = self._bridge = BridgeProcess(kwargs.get("env", os.environ), **outlets)
        info = dict(self.connection_info)
        key: Any = info.get("key", b"")
        info["key"] = key.decode() if isinstance(key, bytes) else key
        bridge.order("start", config=self._config.data(), connection=info)
        try:
            is_started = await bridge.until(
                lambda: bridge.is_started or bridge.ended is not None, START_TIMEOUT_S
            )
        except BaseException:
            bridge.let_go()
            raise
        if not bridge.is_started:
            reason = bridge.reason
            if not is_started:
                reason = reason or f"It took longer than {START_TIMEOUT_S:g} s."
            await self._close()
            raise KernelNotStarted(f"No kernel in a sandbox was started. {reason}".rstrip())
        self.pid = self.pgid = bridge.pid
        self.session_id = bridge.session_id
        self._has_kernel = True
        return self.connection_info

    async def poll(self) -> int | None:
        """None while the kernel lives, else what it ended with."""
        if self._bridge is None or not self._has_kernel:
            return 0
        return self._bridge.poll()

    async def wait(self) -> int | None:
        """Wait until the kernel has ended."""
        code: int | None = 0
        if self._bridge is not None and self._has_kernel:
            bridge = self._bridge
            await bridge.until(lambda: bridge.poll() is not None)
            code = bridge.poll()
        self._has_kernel = False
        return code

    async def send_signal(self, signum: int) -> None:
        """Interrupt the kernel, or end it; other signals do not reach into a sandbox."""
        if self._bridge is None or not self._has_kernel:
            return
        if signum == signal.SIGINT:
            self._bridge.order("interrupt")
        elif signum in (signal.SIGTERM, signal.SIGKILL):
            await self.kill()
        elif signum:
            self.log.warning("The signal %d does not reach a kernel in a sandbox.", signum)

    async def kill(self, restart: bool = False) -> None:
        """End the kernel; the session stays for another until :meth:`cleanup`."""
        bridge = self._bridge
        if bridge is None or not self._has_kernel:
            return
        bridge.order("kill")
        if not await bridge.until(lambda: bridge.ended is not None, KILL_WAIT_S):
            bridge.let_go()
            if not await bridge.until(lambda: bridge.is_over, END_TIMEOUT_S):
                self.log.warning("The bridge of a kernel does not answer; its process is killed.")
                bridge.end()

    async def terminate(self, restart: bool = False) -> None:
        """The same."""
        await self.kill(restart)

    async def shutdown_requested(self, restart: bool = False) -> None:
        """Wait for what the kernel's end was just asked for, which nobody then has to poll for."""
        if (bridge := self._bridge) is not None and self._has_kernel:
            await bridge.until(lambda: bridge.ended is not None, SHUTDOWN_WAIT_S)

    async def cleanup(self, restart: bool = False) -> None:
        """Close the session, unless a restarted kernel goes on in it."""
        if not restart:
            await self._close()
            self._has_kernel = False
        await super().cleanup(restart=restart)

    async def get_provisioner_info(self) -> dict[str, Any]:
        """What another process may want to know: of the bridge, and the session that it holds."""
        info = cast("dict[str, Any]", await super().get_provisioner_info())  # pyright: ignore[reportUnknownMemberType]
        return {**info, "session_id": self.session_id}

    async def load_provisioner_info(self, provisioner_info: dict[str, Any]) -> None:
        """Take over what another process knew; its kernel is still that process's to end."""
        await super().load_provisioner_info(provisioner_info)  # pyright: ignore[reportUnknownMemberType]
        self.session_id = str(provisioner_info.get("session_id", ""))

    def resolve_path(self, path_str: str) -> str | None:
        """None: no path of the sandbox is one of this machine's."""
        return None

    async def _close(self) -> None:
        bridge, self._bridge = self._bridge, None
        if bridge is None:
            return
        bridge.let_go()
        if not await bridge.until(lambda: bridge.is_over, END_TIMEOUT_S):
            self.log.warning("The sandbox of a kernel is still being removed.")
