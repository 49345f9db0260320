"""Writing down the variables of a kernel, name by name, for another kernel to go on with.

All names go through one pickler, which remembers what it has written: what two of them share stays
shared. A name that cannot be written, is too large or takes too long is left, with the reason, and
the pickler forgets what it had begun of it.

Functions and classes of cells are written as they are (cloudpickle), with one difference: the
names that they look up are those of the other kernel's cells, not copies of their own.
"""

from __future__ import annotations

import importlib
import io
import os
import pickle
import pickletools
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from sandbox.supervisor.pykernel import stateframes as frames
from sandbox.supervisor.pykernel.stateframes import (
    FrameWriter,
    TooLongError,
    UnreadStateError,
    time_limit,
)

MAX_REASON_CHARS = 300
MAX_NAME_CHARS = 1000
MAX_PATH_CHARS = 16 * 1024
_MAIN = "__main__"
_OUR_PATH = tuple(sys.path)
"""Where modules are found before any code of a user says otherwise."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be written down: bytes in all, and seconds for each name and in all."""

    total_bytes: int
    name_s: float
    total_s: float


class _TooLargeError(Exception):
    def __init__(self, at_least: int) -> None:
        super().__init__()
        self.at_least = at_least


class _Sink:
    """Where the pickler writes to: frames within a bound, or, meanwhile, a buffer."""

    def __init__(self, out: FrameWriter, total_bytes: int) -> None:
        self._out = out
        self._left = total_bytes
        self._written = 0
        self.aside: bytearray | None = None

    def begin(self) -> None:
        """Another name begins."""
        self._written = 0

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data).cast("B")
        if self.aside is not None:
            self.aside += view
            return len(view)
        self._written += len(view)
        if len(view) > self._left:
            raise _TooLargeError(self._written)
        self._left -= len(view)
        self._out.write(frames.PICKLE, view)
        return len(view)


def write_state(
    namespace: dict[str, Any], names: list[str], fd: int, bounds: Bounds, now: Callable[[], float]
) -> None:
    """Write the values of these names to a descriptor.

    For a process of its own, a fork: it runs code of the values, and takes over ``SIGALRM``.

    Args:
        now: A clock of seconds.

    Raises:
        UnreadStateError: Nobody reads any more.
    """
    out = FrameWriter(fd)
    sink = _Sink(out, bounds.total_bytes)
    pickler = _pickler(namespace, sink)
    out.tell(frames.HEADER, {"cwd": _cwd(), "path": _path()})
    ends_at = now() + bounds.total_s
    for name in names:
        left_s = ends_at - now()
        if left_s <= 0:
            out.tell(frames.LEFT, _left(name, f"all names together took {bounds.total_s:g} s"))
            continue
        if len(name) > MAX_NAME_CHARS:
            out.tell(frames.LEFT, _left(name[:MAX_NAME_CHARS], "its name is too long"))
            continue
        value = namespace[name]
        sink.begin()
        mark, at = _mark(pickler, sink)
        out.tell(frames.NAME, {"name": name, "at": at})
        out.write(frames.PICKLE, bytes(sink.aside or b""))
        sink.aside = None
        why = ""
        try:
            with time_limit(min(bounds.name_s, left_s)):
                pickler.dump(value)
        except UnreadStateError:
            raise
        except BaseException as exc:  # of anyone's code
            why = _reason(value, exc, bounds)
        if why:
            _forget(pickler, mark)
            out.tell(frames.LEFT, _left(name, why))
        else:
            out.tell(frames.WHOLE)
    out.tell(frames.END)


def told_of(error: BaseException) -> str:
    """An error in a line."""
    try:
        said = str(error).strip().partition("\n")[0]
    except BaseException:  # of anyone's class
        said = ""
    name = type(error).__name__
    return f"{name}: {said}"[:MAX_REASON_CHARS] if said else name


def _pickler(namespace: dict[str, Any], sink: _Sink) -> Any:
    """A pickler whose functions go on to use the names of cells."""
    path, sys.path[:] = sys.path[:], _OUR_PATH
    try:  # late, for most kernels never need it; and not from the user's folders
        cloudpickle: Any = importlib.import_module("cloudpickle.cloudpickle")
    finally:
        sys.path[:] = path

    base: Any = cloudpickle.Pickler

    class Pickler(base):
        def _dynamic_function_reduce(self, func: types.FunctionType) -> tuple[Any, ...]:
            reduced = base._dynamic_function_reduce(self, func)
            if func.__globals__ is namespace:
                reduced[2][1]["__globals__"] = {}
            return reduced

        def reducer_override(self, obj: Any) -> Any:
            if obj is names_of_cells:
                return vars, (sys.modules[_MAIN],)
            # cloudpickle knows plain modules only, and IPython's own is not one.
            if isinstance(obj, types.ModuleType) and sys.modules.get(obj.__name__) is obj:
                return importlib.import_module, (obj.__name__,)
            if isinstance(obj, io.IOBase) and not _is_carried(obj):
                raise pickle.PicklingError("an open file cannot be carried")
            return base.reducer_override(self, obj)

    names_of_cells = types.SimpleNamespace()
    pickler = Pickler(sink, protocol=5)
    # What stands in cloudpickle's table for the dictionary that a function of a cell looks into.
    pickler.globals_ref[id(namespace)] = names_of_cells
    return pickler


def _is_carried(file: io.IOBase) -> bool:
    """Whether what looks like a file is one in memory, or the kernel's own."""
    return type(file) in (io.BytesIO, io.StringIO) or file is sys.stdout or file is sys.stderr


def _mark(pickler: Any, sink: _Sink) -> tuple[list[Any], int]:
    """Have the pickler number an object; that, and how many it had numbered before.

    The bytes are set aside in the sink. A pickler does not tell how many it has, but writing the
    same object again gives its number.
    """
    mark: list[Any] = []
    sink.aside = again = bytearray()
    pickler.dump(mark)
    first = bytes(again)
    again.clear()
    pickler.dump(mark)
    gets = [arg for opcode, arg, _ in pickletools.genops(bytes(again)) if "GET" in opcode.name]
    sink.aside = bytearray(first)
    return mark, cast("int", gets[0])


def _forget(pickler: Any, mark: list[Any]) -> None:
    """Have the pickler forget all that it has numbered since a mark."""
    numbered: Mapping[int, tuple[int, Any]] = pickler.memo.copy()
    last = numbered[id(mark)][0]
    pickler.memo = {key: entry for key, entry in numbered.items() if entry[0] <= last}


def _reason(value: Any, error: BaseException, bounds: Bounds) -> str:
    if isinstance(error, _TooLargeError):
        return (
            f"{_size(error.at_least)} or more of it, and the bound for all names together is "
            f"{_size(bounds.total_bytes)}"
        )
    if isinstance(error, TooLongError):
        return f"it took longer than {bounds.name_s:g} s"
    try:
        kind = _kind(value)
    except BaseException:  # of anyone's class
        kind = "thing"
    said = told_of(error)
    if said == f"TypeError: cannot pickle {kind!r} object":
        return f"a {kind} cannot be pickled"
    return f"a {kind} cannot be pickled: {said}"[:MAX_REASON_CHARS]


def _kind(value: object) -> str:
    kind = type(value)
    module, name = str(kind.__module__), str(kind.__qualname__)
    return (name if module in ("builtins", _MAIN) else f"{module}.{name}")[:100]


def _left(name: str, reason: str) -> dict[str, str]:
    return {"name": name, "reason": reason}


def _size(count: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"


def _path() -> list[str]:
    """The module search path, as far as there is room for it."""
    kept: list[str] = []
    for entry in sys.path:
        if isinstance(entry, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # anyone's
            kept.append(entry)
    return kept if sum(map(len, kept)) <= MAX_PATH_CHARS else []


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""
