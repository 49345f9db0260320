"""Taking over the variables that another kernel wrote down, as they come.

Loading runs code of whoever wrote them. That is the code of this sandbox's own principal, which may
run any here; no one else loads what a kernel wrote.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from sandbox.supervisor.pykernel import stateframes as frames
from sandbox.supervisor.pykernel.stateframes import (
    CutStateError,
    FrameReader,
    TooLongError,
    time_limit,
)
from sandbox.supervisor.pykernel.statewriter import MAX_REASON_CHARS, told_of

MAX_TOLD = 200
"""Names that a report has of each kind; the rest is counted."""
MAX_NAME_CHARS = 200
_WHOLE = (str, bytes, int, float, type, types.ModuleType, types.BuiltinFunctionType)
"""What is never half made."""
_NEEDS_MISSING = "it shares something with a name that could not be"


@dataclass(slots=True)
class Report:
    """What became of the names."""

    carried: list[str] = field(default_factory=list[str])
    left: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    """Each with its ``name`` and the ``reason``."""
    size_bytes: int = 0
    cut: bool = False
    """Whether the stream ended too early, so that there may have been more names."""

    def told(self) -> dict[str, Any]:
        """As it is sent."""
        return {
            "carried": [name[:MAX_NAME_CHARS] for name in self.carried[:MAX_TOLD]],
            "carried_count": len(self.carried),
            "left": self.left[:MAX_TOLD],
            "left_count": len(self.left),
            "size_bytes": self.size_bytes,
            "cut": self.cut,
        }

    def leave(self, name: str, reason: str) -> None:
        """Note that a name is not carried."""
        told = {"name": name[:MAX_NAME_CHARS], "reason": reason[:MAX_REASON_CHARS]}
        self.left.append(told)


class _LeftError(BaseException):
    """What was being loaded could not be written as a whole."""


class _Record:
    """The pickle of one name, as a file to read from."""

    def __init__(self, reader: FrameReader, report: Report) -> None:
        self._reader = reader
        self._report = report
        self.reason = ""
        """Why it is left, when it is."""
        self._is_over = False

    def read(self, size: int = -1) -> bytes:
        data = bytearray(max(size, 0))
        return bytes(data[: self.readinto(data)])

    def readinto(self, buffer: bytearray | memoryview) -> int:
        view, count = memoryview(buffer).cast("B"), 0
        while count < len(view):
            got = self._reader.readinto(view[count:]) if self._reader.kind == frames.PICKLE else 0
            count += got
            if not got and not self._go_on():
                break
        self._report.size_bytes += count
        return count

    def readline(self) -> bytes:
        line = bytearray()
        while (byte := self.read(1)) and byte != b"\n":
            line += byte
        return bytes(line + byte)

    def finish(self) -> bool:
        """Go past what is unread; whether it was whole."""
        while self._go_on():
            pass
        return not self.reason

    def _go_on(self) -> bool:
        """Go to its next frame; whether there is one."""
        if not self._is_over:
            kind = self._reader.next()
            if kind == frames.PICKLE:
                return True
            self._is_over = True
            if kind == frames.LEFT:
                self.reason = str(self._reader.json().get("reason"))
            elif kind != frames.WHOLE:
                raise CutStateError("a record has no end")
        if self.reason:
            raise _LeftError
        return False


class _Unpickler(pickle.Unpickler):
    """An unpickler that can be given what another one has numbered."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self._given: Iterator[Any] = iter(())

    def persistent_load(self, pid: Any) -> Any:
        """The next of what it is given; no pickle of ours asks for that."""
        return next(self._given)

    def number(self, given: list[Any]) -> None:
        """Number these objects, from 0 on; its file must hold :func:`_numbering` of so many."""
        self._given = iter(given)
        self.load()


def _numbering(count: int) -> bytes:
    """A pickle that numbers objects: its unpickler cannot be told so otherwise."""
    each = pickle.NONE + pickle.BINPERSID + pickle.MEMOIZE + pickle.POP
    return pickle.PROTO + b"\x05" + each * count + pickle.NONE + pickle.STOP


class _Loader:
    """Loads record after record; what an earlier one has numbered a later one may refer to."""

    def __init__(self) -> None:
        self._numbered: dict[Any, Any] | None = None
        """What is numbered, when that is not as the writer has it."""
        self._file: _Record | io.BytesIO = io.BytesIO()
        self._unpickler: Any = _Unpickler(self)

    def load(self, file: _Record, at: int) -> Any:
        """The next value; ``at``: how many objects the writer had numbered before it."""
        if self._numbered is not None:
            self._number(self._numbered, at)
        self._file = file
        try:
            self._unpickler.load()  # the mark
            return self._unpickler.load()
        except BaseException:
            # Without what it has begun: a list, say, that is not filled yet. The mark is whole.
            self._numbered = {
                key: value
                for key, value in self._unpickler.memo.copy().items()
                if isinstance(key, int) and (key <= at or type(value) in _WHOLE)
            }
            raise

    def _number(self, numbered: dict[Any, Any], at: int) -> None:
        """Be where the writer is, after something was not loaded.

        What comes is numbered by how many there are. So where some are missing others are put,
        under keys that nothing refers to; a later value that needs what is missing fails, as it
        must. Only the slower unpickler has such keys.
        """
        here = {key: value for key, value in numbered.items() if key < at}
        if missing := at - len(here):
            self._unpickler = cast("Any", pickle)._Unpickler(self)
            self._unpickler.memo = here | {f"missing {index}": None for index in range(missing)}
        else:
            self._file = io.BytesIO(_numbering(at))
            self._unpickler = _Unpickler(self)
            self._unpickler.number([here[key] for key in range(at)])
        self._numbered = None

    # --- the file of the unpickler, which keeps one for its life

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        return self._file.readinto(buffer)

    def readline(self) -> bytes:
        return self._file.readline()


def read_state(namespace: dict[str, Any], fd: int, name_s: float) -> Report:
    """Load names from a descriptor into a namespace, which is that of ``__main__``.

    Args:
        name_s: How long one may take, in seconds.
    """
    reader, report, loader = FrameReader(fd), Report(), _Loader()
    own = namespace.get("__builtins__")
    try:
        while (kind := reader.next()) != frames.END:
            if kind == frames.HEADER:
                _settle(reader.json(), report)
            elif kind == frames.LEFT:
                told = reader.json()
                report.leave(str(told.get("name")), str(told.get("reason")))
            elif kind == frames.NAME:
                told = reader.json()
                record = _Record(reader, report)
                _load(namespace, str(told["name"]), loader, record, int(told["at"]), name_s, report)
    except CutStateError:
        report.cut = True
    if own is not None:
        namespace["__builtins__"] = own  # which cloudpickle's functions set to another form of it
    return report


def _load(
    namespace: dict[str, Any],
    name: str,
    loader: _Loader,
    record: _Record,
    at: int,
    name_s: float,
    report: Report,
) -> None:
    why = ""
    value = None
    try:
        with time_limit(name_s):
            value = loader.load(record, at)
    except CutStateError:
        report.leave(name, "it came only in part")
        raise
    except _LeftError:
        pass
    except TooLongError:
        why = f"loading it took longer than {name_s:g} s"
    except BaseException as exc:  # of anyone's code
        why = f"it cannot be loaded: {_NEEDS_MISSING if _needs_missing(exc) else told_of(exc)}"
    try:
        record.finish()
    except _LeftError:
        why = record.reason
    if why or record.reason:
        report.leave(name, why or record.reason)
    else:
        namespace[name] = value
        report.carried.append(name)


def _needs_missing(error: BaseException) -> bool:
    return isinstance(error, pickle.UnpicklingError) and "Memo value" in str(error)


def _settle(header: dict[str, Any], report: Report) -> None:
    """Find modules where the other kernel did, and files."""
    path = [entry for entry in header.get("path", ()) if isinstance(entry, str)]
    sys.path[:] = path + [entry for entry in sys.path if entry not in path]
    cwd = header.get("cwd")
    if isinstance(cwd, str) and cwd:
        try:
            os.chdir(cwd)
        except OSError as exc:
            report.leave("(the current folder)", f"{cwd}: {exc.strerror}")
