"""Tracebacks that lose nothing.

IPython draws no groups of exceptions: it prints them to stderr, and the error message of the cell
is empty. What it cannot draw at all, such as an error whose own ``__str__`` raises, ends in an
error of IPython's. Here both come as Python itself would print them, in the error message of the
cell, and everything else as IPython draws it.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Any, cast

from IPython.core.error import UsageError

MAX_EXCEPTIONS = 300
MAX_FRAMES = 10_000
"""Of all exceptions of a group together; Python reads every one before it draws the first."""
DEEP = 100
"""The frames of one exception that IPython draws; Python says of frames that repeat how often."""
MAX_SHOWN = 15
"""The exceptions of a group that is too large to be drawn; as many as Python shows of one group."""
MAX_LINES = 4000
MAX_LINE = 8 * 1024
FAILED = "<exception str() failed>"
"""What Python says for the words of an exception that has none."""

_INNER = re.compile(r"/IPython/core/interactiveshell\.py$|/sandbox/supervisor/")
"""Where the frames are through which a cell is run."""
_PLACE = re.compile(r'^([ |]*)  File "([^"\n]+)", line (\d+)(.*)$')
_NAME = re.compile(r"^( *\| |)([^\W\d][\w.]*)(?=: |$)")
_GREEN, _RED, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[39m"


class StandIn(Exception):
    """An error in the place of one whose words cannot be had."""

    def __str__(self) -> str:
        """What Python says instead."""
        return FAILED


def install(shell: Any) -> None:
    """Have a shell show what it could not; its user may still replace how it shows errors."""
    shell.showtraceback = Tracebacks(shell).show
    shell.events.register("post_run_cell", _with_words)


class Tracebacks:
    """Shows the errors of one shell."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._show = shell.showtraceback

    def show(
        self,
        exc_tuple: tuple[type[BaseException], BaseException, TracebackType | None] | None = None,
        filename: str | None = None,
        tb_offset: int | None = None,
        exception_only: bool = False,
        running_compiled_code: bool = False,
    ) -> None:
        """Show an error, else the last one; see ``InteractiveShell.showtraceback``."""
        shell = self._shell
        try:
            etype, value, tb = shell._get_exc_info(exc_tuple)
        except ValueError:  # there was none, as is then said
            self._show(exc_tuple)
            return
        is_syntax = issubclass(etype, SyntaxError) and "_render_traceback_" not in vars(value)
        if exception_only or is_syntax or issubclass(etype, (UsageError, SystemExit)):
            self._show(exc_tuple, filename, tb_offset, exception_only, running_compiled_code)
            return
        _trim(tb)
        try:
            lines = self._lines(etype, value, tb, tb_offset)
            shell._showtraceback(etype, value if words(value) else StandIn(), lines)
            if shell.call_pdb:
                shell.debugger(force=True)
        except KeyboardInterrupt:
            print("\n" + shell.get_exception_only(), file=sys.stderr)

    def _lines(
        self,
        etype: type[BaseException],
        value: BaseException,
        tb: TracebackType | None,
        tb_offset: int | None,
    ) -> list[str]:
        with suppress(Exception):  # there may be anything in the error's own class
            own: Any = getattr(value, "_render_traceback_", None)
            if own is not None:
                return own()
        if words(value) and not is_involved(value, tb):
            with suppress(Exception):
                draw = self._shell.InteractiveTB.structured_traceback
                return draw(etype, value, tb, tb_offset=tb_offset)
        is_coloured = str(self._shell.colors).lower() != "nocolor"
        return [self._told(line, is_coloured=is_coloured) for line in lines_of(value, tb)]

    def _told(self, line: str, *, is_coloured: bool) -> str:
        """A line of Python's with the cell's number for its file, and in IPython's colours."""
        green, red, plain = (_GREEN, _RED, _PLAIN) if is_coloured else ("", "", "")
        if found := _PLACE.match(line):
            before, file, number, rest = found.groups()
            cell = self._shell.compile.format_code_name(file)
            place = " ".join(cell) if cell else f'File "{file}"'
            return f"{before}  {green}{place}, line {number}{plain}{rest}"
        return _NAME.sub(rf"\1{red}\2{plain}", line) if is_coloured else line


def words(value: BaseException) -> bool:
    """Whether an exception can say what it is."""
    try:
        str(value)
    except BaseException:  # the user's own code raises here, and that is the answer
        return False
    return True


def is_involved(value: BaseException, tb: TracebackType | None = None) -> bool:
    """Whether an exception is, or came of, a group or more than IPython draws in a moment."""
    chain = list(_chain(value))
    if len(chain) == MAX_EXCEPTIONS or any(isinstance(e, BaseExceptionGroup) for e in chain):
        return True
    return any(map(_is_deep, (tb, *(each.__traceback__ for each in chain))))


def lines_of(value: BaseException, tb: TracebackType | None) -> Iterator[str]:
    """A traceback as Python prints it, without the frames through which a cell is run; bounded."""
    try:
        text = _drawn(value, tb) if _is_small(value) else _told_shortly(value, tb)
    except RecursionError:
        text = _told_shortly(value, tb)
    lines = text.splitlines()
    if left_out := len(lines[MAX_LINES:]):
        half = MAX_LINES // 2
        lines[half : half + left_out] = [f"[… {left_out} lines left out …]"]
    yield from map(_clipped, lines)


def _drawn(value: BaseException, tb: TracebackType | None) -> str:
    told = traceback.TracebackException(type(value), value, tb, compact=True)
    _strip(told)
    return "".join(told.format())


def _chain(value: BaseException) -> Iterator[BaseException]:
    """An exception and those that it came of, as Python shows them."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen and len(seen) < MAX_EXCEPTIONS:
            seen.add(id(each))
            yield each
            waiting += _causes(each)


def _is_deep(tb: TracebackType | None) -> bool:
    """Whether IPython takes seconds for a traceback, as for that of a recursion without end."""
    return next(islice(traceback.walk_tb(tb), DEEP, None), None) is not None


def _causes(value: BaseException) -> list[BaseException]:
    context = None if value.__suppress_context__ else value.__context__
    return [each for each in (value.__cause__, context) if each is not None]


def _members(value: BaseException) -> tuple[BaseException, ...]:
    """The exceptions of a group; none of what is no group."""
    is_group = isinstance(value, BaseExceptionGroup)
    return cast("tuple[BaseException, ...]", value.exceptions) if is_group else ()  # pyright: ignore[reportUnknownMemberType]


def _is_small(value: BaseException) -> bool:
    """Whether a group and all in it can be drawn."""
    left, frames = MAX_EXCEPTIONS, MAX_FRAMES
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        each = waiting.pop()
        seen.add(id(each))
        left -= 1
        tb = each.__traceback__
        while tb is not None and frames > 0:
            tb, frames = tb.tb_next, frames - 1
        if left < 0 or frames <= 0:
            return False
        waiting += [cause for cause in _causes(each) if id(cause) not in seen]
        waiting += _members(each)[: left + 1]
    return True


def _strip(told: traceback.TracebackException) -> None:
    """Take away the frames through which cells are run, wherever an error came through them."""
    waiting: list[traceback.TracebackException | None] = [told]
    while waiting:
        if (each := waiting.pop()) is None:
            continue
        while each.stack and _INNER.search(each.stack[0].filename):
            del each.stack[0]
        waiting += [each.__cause__, each.__context__, *(each.exceptions or ())]


def _trim(tb: TracebackType | None) -> None:
    """Take away the frames of ours at the end of a traceback: what they refuse was asked above."""
    last, at = None, tb
    while at is not None:
        if not _INNER.search(at.tb_frame.f_code.co_filename):
            last = at
        at = at.tb_next
    if last is not None:
        last.tb_next = None


def _told_shortly(value: BaseException, tb: TracebackType | None) -> str:
    """What is too large to be drawn, or something that came of it, in a line for each exception."""
    frames = [f for f in traceback.extract_tb(tb, -MAX_SHOWN) if not _INNER.search(f.filename)]
    lines = ["Traceback (most recent call last):", *traceback.format_list(frames)]
    for each in islice(_chain(value), MAX_SHOWN):
        lines.append(_line(each))
        members = _members(each)
        lines += [f"  | {_line(below)}" for below in members[:MAX_SHOWN]]
        if left_out := len(members[MAX_SHOWN:]):
            lines.append(f"  | and {left_out} more exceptions")
    return "\n".join(line.rstrip("\n") for line in lines)


def _line(value: BaseException) -> str:
    said = str(value) if words(value) else FAILED
    return f"{type(value).__name__}: {said}".replace("\n", " ")


def _clipped(line: str) -> str:
    half = MAX_LINE // 2
    return line if len(line) <= MAX_LINE else f"{line[:half]} […] {line[-half:]}"


def _with_words(result: Any) -> None:
    """Put an error that has words in the place of one that has none, before a reply is made."""
    for name in ("error_before_exec", "error_in_exec"):
        error = getattr(result, name, None)
        if isinstance(error, BaseException) and not words(error):
            alike = type(type(error).__name__, (StandIn,), {})
            setattr(result, name, alike())
