"""The supervisor's process: its socket, its event loop, and the forks that become kernels."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, NoReturn

from sandbox.supervisor import bundle
from sandbox.supervisor.preload import PRELOAD, PRELOADED
from sandbox.supervisor.spared import spare

if TYPE_CHECKING:
    from sandbox.supervisor.ipython import KernelStart

ADDRESS = "@sandbox-supervisor"
"""In the abstract namespace, which is the container's own: no full disk and no `rm` reaches it."""
STATE_DIR = "/tmp/.sandbox"
WORKSPACE = "/workspace"
AS_KERNEL = "--kernel="
"""An argument: be the kernel that this describes, and no supervisor."""


class BecomeKernel(SystemExit):
    """Raised in a fork: asyncio lets a ``SystemExit`` out of its loop, and nothing else runs."""

    def __init__(self, start: KernelStart) -> None:
        super().__init__(0)
        self.start = start


async def fork_kernel(start: KernelStart) -> int:
    """Fork the supervisor; the fork leaves its event loop and becomes a kernel. Returns its pid.

    The fork happens in a callback of its own, so that no coroutine of ours is unwound in it.
    """
    await PRELOADED.ready(start.env)
    loop = asyncio.get_running_loop()
    forked: asyncio.Future[int] = loop.create_future()
    loop.call_soon(_fork, start, forked)
    return await forked


def _fork(start: KernelStart, forked: asyncio.Future[int]) -> None:
    # A signal that came between the fork and the kernel's own handlers would be told to our loop.
    old = signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.valid_signals()))
    try:
        pid = os.fork()
    except OSError as exc:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
        forked.set_exception(exc)
        return
    if pid == 0:
        raise BecomeKernel(start)
    signal.pthread_sigmask(signal.SIG_SETMASK, old)
    forked.set_result(pid)


def main() -> None:
    """Run the supervisor until it is told to end; never returns."""
    arguments = sys.argv[1:]
    gc.disable()  # of what is imported nothing is let go of
    if bundle.TELL in arguments:
        _tell_modules()
        return
    if said := [each for each in arguments if each.startswith(AS_KERNEL)]:
        _begin_as_kernel(said[0].removeprefix(AS_KERNEL))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listener.bind(os.environ.get("SANDBOX_SUPERVISOR", ADDRESS).replace("@", "\0", 1))
    listener.listen(16)
    # A bridge can connect from here on and waits in the queue, while the slow imports are made.
    spare()
    from sandbox.supervisor.account import write_account
    from sandbox.supervisor.dispatch import Supervisor
    from sandbox.supervisor.environment import base_environment
    from sandbox.supervisor.ipython import become_kernel, prepare
    from sandbox.supervisor.restraint import reserve_descriptors

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    state_dir = os.environ.get("SANDBOX_STATE", STATE_DIR)
    workspace = os.environ.get("SANDBOX_WORKSPACE", WORKSPACE)
    env = base_environment(workspace, state_dir)
    write_account(state_dir, env["HOME"])
    prepare(env["IPYTHONDIR"])
    bundle.let_go()
    said = [each.removeprefix(PRELOAD) for each in arguments if each.startswith(PRELOAD)]
    PRELOADED.wanted += [name for each in said for name in each.split(",") if name]
    reserve_descriptors()
    loop = asyncio.new_event_loop()
    supervisor = Supervisor(
        listener, workspace=workspace, state_dir=state_dir, env=env, fork=fork_kernel
    )
    # Whoever started us may have ignored it; programs in terminals are to be interrupted by it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    loop.add_signal_handler(signal.SIGTERM, supervisor.end)
    running = loop.create_task(supervisor.run())
    running.add_done_callback(lambda _: loop.stop())
    gc.enable()
    gc.collect()
    gc.freeze()  # what is shared with the kernels stays shared: the collector leaves it alone
    start = None
    try:
        loop.run_forever()
    except BecomeKernel as fork:
        start = fork.start  # and on outside: what a cell raises must not have this as its context
    if start is not None:
        become_kernel(start)
    running.result()  # it only ends by an error


def _begin_as_kernel(said: str) -> NoReturn:
    """Be a kernel for which nothing was imported before."""
    spare()
    from sandbox.supervisor.ipython import KernelStart, become_kernel, prepare

    start = KernelStart.from_json(said, dict(os.environ))
    prepare(start.env["IPYTHONDIR"])
    bundle.let_go()
    gc.enable()
    become_kernel(start)


def _tell_modules() -> None:
    """Import all that a supervisor does, and say what that was."""
    spare()
    for name in ("account", "dispatch", "environment"):
        importlib.import_module(f"sandbox.supervisor.{name}")
    from sandbox.supervisor.ipython import prepare

    prepare(STATE_DIR)
    bundle.tell()
