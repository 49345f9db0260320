"""The IPython kernel, as a fork of the supervisor becomes one.

Imported once, before anything is forked: a kernel then starts in tens of milliseconds. What a user
must not see of the supervisor (its path, its modules, its descriptors) is taken away first.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import logging
import os
import signal
import site
import sys
import tempfile
import traceback
import types
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from IPython.core.profiledir import ProfileDir
from traitlets import Any as AnyTrait
from traitlets.config import Application, Configurable

from sandbox.supervisor.preload import PRELOAD, PRELOADED
from sandbox.supervisor.pykernel import eventloop, laterimports
from sandbox.supervisor.pykernel.branching import KernelPlace, handle_branch
from sandbox.supervisor.pykernel.extensions import INSTALLED
from sandbox.supervisor.pykernel.kernel import PairKernel
from sandbox.supervisor.pykernel.pair import Pair
from sandbox.supervisor.pykernel.streams import Streams
from sandbox.supervisor.restraint import restrain

AS_KERNEL = "--kernel="
"""An argument: be the kernel that this describes, and no supervisor."""
_PAIR_FD = 3
_NEEDED = (
    "ipykernel.debugger",
    *(f"IPython.core.{name}" for name in ("completerlib", "debugger", "logger", "oinspect")),
    *("IPython.extensions.storemagic", "IPython.utils.wildcard", "faulthandler", "pdb"),
    "unicodedata",
    *(f"tornado.{name}" for name in ("gen", "locks", "queues", "platform.asyncio")),
)
"""What ipykernel imports only once a kernel starts."""


@dataclass(frozen=True, slots=True)
class KernelStart:
    """What a new kernel process needs to know."""

    fds: tuple[int, int, int]
    """Its end of the pair, and what becomes its stdout and stderr."""
    cwd: str
    env: dict[str, str]
    mark: int
    """What all that it starts is known by."""

    def to_json(self) -> str:
        """All but the environment, which a program has of itself."""
        return json.dumps([self.fds, self.cwd, self.mark])

    @classmethod
    def from_json(cls, text: str, env: dict[str, str]) -> KernelStart:
        """What :meth:`to_json` has written, with its environment."""
        fds, cwd, mark = json.loads(text)
        return cls(tuple(fds), cwd, env, mark)


def become_kernel(start: KernelStart) -> NoReturn:
    """Turn this process, just forked from the supervisor, into a kernel; ends with the process."""
    code = 0
    try:
        _leave_supervisor(start)
        if PRELOADED.is_to_be_undone():
            _begin_again(start)
        with _nothing_configured():
            kernel = _make(start)
        _hide_supervisor()
        kernel.run()
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
        code = 1
    try:
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]  # as the interpreter does
    finally:
        os._exit(code)


def _begin_again(start: KernelStart) -> NoReturn:
    """Begin as a new program: what was imported before this fork is not what this kernel finds.

    Many modules can be loaded once by a process only, so that none of it can be taken back here.
    """
    os.set_inheritable(_PAIR_FD, True)
    there = KernelStart((_PAIR_FD, 1, 2), start.cwd, start.env, start.mark)
    arguments = [each for each in sys.orig_argv if not each.startswith(PRELOAD)]
    arguments.append(AS_KERNEL + there.to_json())
    os.execve(sys.executable, arguments, start.env)  # noqa: S606  # this program itself


def _make(start: KernelStart) -> PairKernel:
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    pair = Pair(_PAIR_FD, lambda: streams.settle())
    streams = Streams(pair, lambda parent, name, text: kernel.late(parent, name, text))
    loop = eventloop.make()
    folder = os.path.join(start.env["IPYTHONDIR"], "profile_default")
    kernel = PairKernel.instance(
        pair=pair,
        streams=streams,
        loop=loop,
        # Made before the first kernel, whatever has happened to the disk since.
        profile_dir=ProfileDir(location=folder),
    )
    place = KernelPlace(
        {pair.fileno(): 0, **streams.descriptors()},
        loop,
        flush=lambda: (streams.flush(), pair.flush()),
        begin=lambda: (pair.begin_anew(), streams.begin_anew(), kernel.say_ready()),
    )
    kernel.orders["branch"] = lambda order, fds: handle_branch(order, fds, place)
    kernel.orders["alarm"] = lambda _order, _fds: signal.getitimer(signal.ITIMER_REAL)[0]
    KernelApplication.instance(kernel=kernel, shell=kernel.shell)
    laterimports.once_imported("ipykernel.kernelapp", _put_application)
    cast("Any", kernel.shell).extension_manager.load_extension("storemagic")
    for install in INSTALLED:
        install(kernel.shell)
    return kernel


class KernelApplication(Application):
    """What code finds that asks for the application of this process, and the kernel there."""

    name = "ipython-kernel"
    kernel = AnyTrait()
    shell = AnyTrait()


def _put_application(module: types.ModuleType) -> None:
    """Let code that has ipykernel's own class of it find one of that."""
    mine = KernelApplication.instance()
    KernelApplication.clear_instance()
    application = module.IPKernelApp.instance()
    application.kernel, application.shell = mine.kernel, mine.shell


@contextlib.contextmanager
def _nothing_configured() -> Generator[None]:
    """Spare the parts of a kernel, forty-four, the look for themselves in an empty configuration:
    it takes a third of a kernel's start."""
    look: Any = getattr(Configurable, "_load_config")  # noqa: B009  # of another's

    def look_if_any(part: Any, config: Any, *more: Any, **options: Any) -> None:
        if any(config.values()):
            look(part, config, *more, **options)

    setattr(Configurable, "_load_config", look_if_any)  # noqa: B010
    gc.disable()  # of what is made here nothing is let go of
    try:
        yield
    finally:
        gc.enable()
        setattr(Configurable, "_load_config", look)  # noqa: B010


def _leave_supervisor(start: KernelStart) -> None:
    with contextlib.suppress(PermissionError):  # it has one: it begins again
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
    # First beyond all targets, so that none is written over before it is used.
    sources = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (null, *start.fds[1:], start.fds[0])]
    for target, source in enumerate(sources):
        os.dup2(source, target, inheritable=target < _PAIR_FD)
    os.closerange(_PAIR_FD + 1, os.sysconf("SC_OPEN_MAX"))
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
