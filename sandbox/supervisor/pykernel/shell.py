"""IPython's shell as the kernel runs it: it survives whatever a cell leaves behind."""

# ipykernel, jupyter_client and IPython are annotated in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

import contextlib
import inspect
import warnings
from types import FrameType
from typing import Any, cast

from ipykernel.displayhook import ZMQShellDisplayHook
from ipykernel.zmqshell import ZMQDisplayPublisher, ZMQInteractiveShell
from IPython.core import interactiveshell
from IPython.core.autocall import ExitAutocall
from IPython.core.history import HistoryManager
from traitlets import Bool, Instance, Type, default

from sandbox.supervisor.pykernel.shortcuts import QuickFormatter, QuickTransformers, may_await
from sandbox.supervisor.pykernel.streams import Streams

_ADVICE = "To exit: use"
_SHOW_AND_END = compile("0", "", "single").co_code[::2][-3:]
"""The last three instructions of an expression that is shown: show it, and return None."""


class Exit(ExitAutocall):
    """``exit`` and ``quit`` of a cell: as in any program, nothing after them runs."""

    def __call__(self, code: Any = None, keep_kernel: bool = True) -> None:
        """End the cell."""
        raise SystemExit(code)


class PairDisplayHook(ZMQShellDisplayHook):
    """The value of a cell's last expression."""

    _ends_cell = False

    @staticmethod
    def semicolon_at_end_of_expression(expression: str) -> bool:
        """Whether a cell ends in a semicolon: cut into tokens only where there is one."""
        if ";" not in expression:
            return False
        return bool(ZMQShellDisplayHook.semicolon_at_end_of_expression(expression))

    def __call__(self, result: Any = None) -> None:
        """Publish a value."""
        self._ends_cell = _ends_cell(inspect.currentframe(), self.shell)
        super().__call__(result)

    def finish_displayhook(self) -> None:
        """Publish it, whatever the cell has made of its streams.

        The value of a cell's end goes with the messages that say that the cell has ended.
        """
        _mend(self.shell)
        streams = getattr(self.shell, "streams", None)
        with streams.holding() if streams and self._ends_cell else contextlib.nullcontext():
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
    # Not by a configuration, which every part of the shell would look through. A tip would take a
    # number from the user's own source of chance at each kernel_info.
    enable_tip = Bool(False)
    streams: Streams | None = None
    left: SystemExit | None = None

    @default("exiter")
    def _default_exit(self) -> Exit:
        return Exit(self)

    @default("input_transformer_manager")
    def _default_transformers(self) -> QuickTransformers:
        return QuickTransformers()

    def init_history(self) -> None:
        """Keep the history in memory only."""
        self.history_manager = manager = HistoryManager(shell=self, parent=self, enabled=False)
        cast("list[Any]", self.configurables).append(manager)

    def init_display_formatter(self) -> None:
        """Make the formatter of values."""
        self.display_formatter = formatter = QuickFormatter(parent=self)
        cast("list[Any]", self.configurables).append(formatter)

    def should_run_async(self, raw_cell: str, *, transformed_cell: Any = None, **more: Any) -> bool:
        """Whether a cell needs the loop: compiled for that only when it may."""
        if isinstance(transformed_cell, str) and not may_await(transformed_cell):
            return False
        return super().should_run_async(raw_cell, transformed_cell=transformed_cell, **more)

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


def _ends_cell(frame: FrameType | None, shell: Any) -> bool:
    """Whether what has called a function is the last of its cell: shows a value, and ends."""
    frame = frame.f_back if frame is not None else None
    if frame is None or shell.ast_node_interactivity != "last_expr":
        return False
    code = frame.f_code
    rest = code.co_code[frame.f_lasti :: 2]
    return code.co_name == "<module>" and rest == _SHOW_AND_END


def _mend(shell: Any) -> None:
    streams = getattr(shell, "streams", None)
    if streams is not None:
        streams.mend()


def _warn(message: Any, *args: Any, **options: Any) -> None:
    if not str(message).startswith(_ADVICE):
        options["stacklevel"] = options.get("stacklevel", 1) + 1
        warnings.warn(message, *args, **options)


setattr(interactiveshell, "warn", _warn)  # noqa: B010  # whose advice on how to exit would be wrong here
