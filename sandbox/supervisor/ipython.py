"""The IPython kernel, as a fork of the supervisor becomes one.

Imported once, before anything is forked: a kernel then starts in tens of milliseconds. What a user
must not see of the supervisor (its path, its modules, its descriptors) is taken away first.
"""

from __future__ import annotations

import atexit
import codecs
import contextlib
import gc
import importlib
import logging
import os
import signal
import site
import sys
import tempfile
import traceback
import types
from dataclasses import dataclass
from typing import Any, NoReturn

import zmq
from ipykernel.iostream import OutStream
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from IPython.core.profiledir import ProfileDir

from sandbox.supervisor.restraint import restrain

IOPUB_QUEUE = 64
"""Messages that wait in the kernel for the supervisor, before the kernel waits."""
PIECE_CHARS = 120 * 1024
"""What a cell prints between two waits; mostly a byte each, so one message of the log."""
_NEEDED = (
    "ipykernel.debugger",
    *(f"IPython.core.{name}" for name in ("completerlib", "debugger", "logger", "oinspect")),
    *("IPython.extensions.storemagic", "IPython.utils.wildcard", "faulthandler", "pdb"),
    *(f"tornado.{name}" for name in ("gen", "locks", "queues", "platform.asyncio")),
)
"""What ipykernel imports only once a kernel starts."""
_INTERRUPTED: dict[str, Any] = {"ename": "KeyboardInterrupt", "evalue": "", "traceback": []}
CHANNEL_PORTS = {"shell": 1, "iopub": 2, "stdin": 3, "control": 4, "hb": 5}


@dataclass(frozen=True, slots=True)
class KernelStart:
    """What a new kernel process needs to know."""

    endpoint: str
    """The start of its sockets' names, without ``ipc://``."""
    cwd: str
    env: dict[str, str]
    mark: int
    """What all that it starts is known by."""
    output_fd: int
    """Where its own stdout and stderr go; what cells print goes over its sockets."""


class PacedOutStream(OutStream):
    """A cell's stdout: it waits for the reader instead of growing, and cuts between characters."""

    def write(self, string: str) -> int | None:
        """Publish text, in pieces; waits while more than one piece has not been sent."""
        if not isinstance(string, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # anyone's
            return super().write(string)
        for start in range(0, len(string), PIECE_CHARS):
            piece = string[start : start + PIECE_CHARS]
            super().write(piece)
            self._pace(len(piece))
        return len(string)

    def _pace(self, size: int) -> None:
        self._unflushed = getattr(self, "_unflushed", 0) + size
        if self._unflushed >= PIECE_CHARS and self.pub_thread is not None:
            self.flush()

    def _flush(self) -> None:
        self._unflushed = 0
        super()._flush()

    def _watch_pipe_fd(self) -> None:
        """Publish what is written to the descriptor itself, by C code or by child processes."""
        if self._fid is None:
            return
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with contextlib.suppress(OSError, ValueError):
            while (data := os.read(self._fid, 65536)) and self._should_watch:
                self.write(decoder.decode(data))


class SteadyKernel(IPythonKernel):
    """A kernel that an interrupt reaches in the user's code only.

    Elsewhere it would take away a reply, leave half of a message in a socket, or end the kernel.
    """

    def pre_handler_hook(self) -> None:
        """Requests as such are not interrupted."""

    def post_handler_hook(self) -> None:
        """Leave interrupts ignored, whatever the request did."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def do_execute(self, *args: Any, **options: Any) -> dict[str, Any]:
        """Run a cell; one that was interrupted as it ended has a reply, too."""
        try:
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                return await super().do_execute(*args, **options)  # pyright: ignore[reportUnknownMemberType]
            finally:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            return {"status": "error", **_INTERRUPTED}

    def do_complete(self, *args: Any, **options: Any) -> dict[str, Any]:
        """Complete a name, which asks the user's objects."""
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            return super().do_complete(*args, **options)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def do_inspect(self, *args: Any, **options: Any) -> dict[str, Any]:
        """Describe a name, which asks the user's objects."""
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            return super().do_inspect(*args, **options)  # pyright: ignore[reportUnknownMemberType]
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


class KernelApp(IPKernelApp):
    """ipykernel without what the supervisor does itself: no files, no heartbeat, no key."""

    def init_connection_file(self) -> None:
        """The supervisor knows the sockets: they are given, not written down."""

    def write_connection_file(self, **kwargs: Any) -> None:
        """There is no such file."""

    def init_heartbeat(self) -> None:
        """The supervisor sees a kernel's end at once, as its parent."""

    def init_iopub(self, context: zmq.Context[Any]) -> None:
        """A publisher that waits for its reader where ZeroMQ's default is to drop silently."""
        context.setsockopt(zmq.XPUB_NODROP, 1)
        context.setsockopt(zmq.SNDHWM, IOPUB_QUEUE)
        try:
            super().init_iopub(context)  # pyright: ignore[reportUnknownMemberType]
        finally:
            context.sockopts.pop(zmq.XPUB_NODROP)
            context.sockopts.pop(zmq.SNDHWM)

    def init_profile_dir(self) -> None:
        """The profile that was made before the first kernel, whatever has happened to the disk."""
        self.profile_dir = ProfileDir(location=os.path.join(self.ipython_dir, "profile_default"))


def become_kernel(start: KernelStart) -> NoReturn:
    """Turn this process, just forked from the supervisor, into a kernel; ends with the process."""
    code = 0
    try:
        _leave_supervisor(start)
        app = KernelApp.instance(
            transport="ipc",
            ip=start.endpoint,
            log_level=logging.CRITICAL,
            connection_file="kernel.json",
            parent_handle=0,
            kernel_class=SteadyKernel,
            outstream_class=f"{__name__}.{PacedOutStream.__name__}",
            **{f"{channel}_port": port for channel, port in CHANNEL_PORTS.items()},
        )
        app.config.Session.key = b""
        app.config.HistoryManager.enabled = False
        app.initialize([])  # pyright: ignore[reportUnknownMemberType]  # ipykernel is not annotated
        _hide_supervisor()
        app.start()
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
        code = 1
    try:
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]  # as the interpreter does
    finally:
        os._exit(code)


def _leave_supervisor(start: KernelStart) -> None:
    os.setsid()
    restrain(start.mark)
    gc.freeze()  # the supervisor's tasks and sockets are never to be collected here
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    # gVisor hangs up on all of a group that has no terminal when one ends while others are stopped.
    signal.signal(signal.SIGHUP, _go_on)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    null = os.open(os.devnull, os.O_RDWR)
    for target, source in ((0, null), (1, start.output_fd), (2, start.output_fd)):
        os.dup2(source, target)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(start.env)
    with contextlib.suppress(OSError):
        os.chdir(start.cwd)
    for handler in tuple(logging.root.handlers):
        logging.root.removeHandler(handler)
    logging.root.setLevel(logging.WARNING)
    sys.argv[:] = ["ipykernel_launcher"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    _set_path(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def _go_on(_signal: int, _frame: types.FrameType | None) -> None:
    """Handle a signal by doing nothing; programs that are started do not inherit that."""


def _set_path(ours: str) -> None:
    """The module search path of a plain ``python3``, though this one runs isolated (``-I``)."""
    kept = [path for path in sys.path if path not in ("", ours)]
    site.ENABLE_USER_SITE = True
    site.USER_BASE = site.USER_SITE = None
    user_site = site.getusersitepackages()
    with contextlib.suppress(OSError):  # it must exist for what pip puts there later to be found
        os.makedirs(user_site, exist_ok=True)
    at = next((i for i, path in enumerate(kept) if path.endswith("-packages")), len(kept))
    extra = [path for path in os.environ.get("PYTHONPATH", "").split(":") if path]
    sys.path[:] = ["", *extra, *kept[:at]]
    site.addsitedir(user_site)
    sys.path += [path for path in kept[at:] if path not in sys.path]


def _hide_supervisor() -> None:
    """``import sandbox`` must find the user's own."""
    for name in tuple(sys.modules):
        if name == "sandbox" or name.startswith("sandbox."):
            del sys.modules[name]


def prepare(ipython_dir: str) -> None:
    """Do once, before any fork, what every kernel would do: late imports, and the profile."""
    tempfile.gettempdir()  # every cell asks for it, and finding it needs room on a disk
    sys.modules["debugpy"] = None  # type: ignore[assignment]  # as if it were not installed:
    for name in _NEEDED:  # no debugger is offered, and it takes 0.1 s and 10 MB to import
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    del sys.modules["debugpy"]
    with contextlib.suppress(OSError):  # a full disk: kernels then fail, and say why
        ProfileDir(location=os.path.join(ipython_dir, "profile_default"))
