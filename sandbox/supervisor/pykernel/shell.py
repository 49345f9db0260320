"""IPython's shell as the kernel runs it: it survives whatever a cell leaves behind."""

# ipykernel, jupyter_client and IPython are annotated in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

import contextlib
import warnings
from typing import Any

from ipykernel.displayhook import ZMQShellDisplayHook
from ipykernel.zmqshell import ZMQDisplayPublisher, ZMQInteractiveShell
from IPython.core import interactiveshell
from IPython.core.autocall import ExitAutocall
from traitlets import Instance, Type, default

from sandbox.supervisor.pykernel.streams import Streams

_ADVICE = "To exit: use"


class Exit(ExitAutocall):
    """``exit`` and ``quit`` of a cell: as in any program, nothing after them runs."""

    def __call__(self, code: Any = None, keep_kernel: bool = True) -> None:
        """End the cell."""
        raise SystemExit(code)


class PairDisplayHook(ZMQShellDisplayHook):
    """The value of a cell's last expression."""

    def finish_displayhook(self) -> None:
        """Publish it, whatever the cell has made of its streams."""
        _mend(self.shell)
        super().finish_displayhook()


class PairDisplayPublisher(ZMQDisplayPublisher):
    """What a cell displays."""

    def _flush_streams(self) -> None:
        _mend(self.shell)


class PairShell(ZMQInteractiveShell):
    """The shell. ``left`` is how the last cell ended itself, if it did."""

    displayhook_class = Type(PairDisplayHook)
    display_pub_class = Type(PairDisplayPublisher)
    exiter = Instance(ExitAutocall)
    streams: Streams | None = None
    left: SystemExit | None = None

    @default("exiter")
    def _default_exit(self) -> Exit:
        return Exit(self)

    def _tee(self, channel: str) -> Any:
        # IPython would keep all that is ever printed, for ``%notebook``, and be slow at it.
        return contextlib.nullcontext()

    def _showtraceback(self, etype: Any, evalue: Any, stb: Any) -> None:
        _mend(self)
        super()._showtraceback(etype, evalue, stb)

    def showtraceback(self, *args: Any, **options: Any) -> None:
        """Show an exception; a cell's own end is none, and its code is told."""
        try:
            _, value, _ = self._get_exc_info(args[0] if args else options.get("exc_tuple"))
        except ValueError:
            value = None
        if not isinstance(value, SystemExit):
            super().showtraceback(*args, **options)
            return
        self.left = value
        if exit_code(value):
            self._showtraceback(SystemExit, value, [f"SystemExit: {value.code}"])


# Programs know a notebook by the class of its shell.
PairShell.__name__ = PairShell.__qualname__ = ZMQInteractiveShell.__name__
PairShell.__module__ = ZMQInteractiveShell.__module__


def exit_code(ending: SystemExit) -> int:
    """The code with which a program would end."""
    if ending.code is None:
        return 0
    return int(ending.code) if isinstance(ending.code, int) else 1


def _mend(shell: Any) -> None:
    streams = getattr(shell, "streams", None)
    if streams is not None:
        streams.mend()


def _warn(message: Any, *args: Any, **options: Any) -> None:
    if not str(message).startswith(_ADVICE):
        options["stacklevel"] = options.get("stacklevel", 1) + 1
        warnings.warn(message, *args, **options)


setattr(interactiveshell, "warn", _warn)  # noqa: B010  # whose advice on how to exit would be wrong here
