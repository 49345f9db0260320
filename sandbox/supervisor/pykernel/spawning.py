"""Processes that do not begin as a copy of the kernel cannot find what is defined in its cells.

Python finds that out in the new process, which dies of it; a pool starts the next one, for ever.
Here the error is raised where the process is started or the work is given, with its remedy.
"""

from __future__ import annotations

import pickle
import sys
from types import FunctionType, ModuleType
from typing import Any

from sandbox.supervisor.pykernel.laterimports import once_imported

MAIN = "__main__"


class Refused(pickle.PicklingError):
    """The other process would not find it."""


Refused.__name__ = Refused.__qualname__ = pickle.PicklingError.__name__


def install(_shell: Any) -> None:
    """Refuse what would hang, once there is something that can start processes so."""
    once_imported("multiprocessing.reduction", _check_starts)
    once_imported("multiprocessing.pool", _check_work)


def _check_starts(reduction: ModuleType) -> None:
    """Have the objects looked at that a new process is given; copies of the kernel get none."""
    pickler = _pickler(reduction)

    def dump(obj: object, file: Any, protocol: int | None = None) -> None:
        """Replacement for pickle.dump() using ForkingPickler."""
        try:
            pickler(file, protocol).dump(obj)
        except Refused as exc:
            raise exc.with_traceback(None) from None  # the way to it says nothing to anybody

    reduction.__dict__["dump"] = dump


def _check_work(pool: ModuleType) -> None:
    """Have the work looked at that a pool hands to processes which are no copies."""
    kind: Any = pool.__dict__["Pool"]
    connect = kind._setup_queues

    def _setup_queues(self: Any) -> None:
        connect(self)
        if self._ctx.get_start_method() != "fork":
            pickler: Any = _pickler(sys.modules["multiprocessing.reduction"])
            writer = self._inqueue._writer

            def put(task: object) -> None:
                try:
                    data = pickler.dumps(task)
                except Refused as exc:
                    raise exc.with_traceback(None) from None
                writer.send_bytes(data)

            self._quick_put = put

    kind._setup_queues = _setup_queues


def _pickler(reduction: ModuleType) -> Any:
    base: Any = reduction.__dict__["ForkingPickler"]

    class CellPickler(base):  # pyright: ignore[reportUntypedBaseClass]
        """Pickles what the other end can find."""

        def reducer_override(self, obj: object) -> Any:
            """Refuse what is defined in a cell."""
            if isinstance(obj, FunctionType | type) and is_of_a_cell(obj):
                raise Refused(refusal(obj))
            return NotImplemented

    return CellPickler


def is_of_a_cell(obj: FunctionType | type) -> bool:
    """Whether a function or class is defined in a cell, and in no file."""
    main = sys.modules.get(MAIN)
    return obj.__module__ == MAIN and getattr(main, "__file__", None) is None


def refusal(obj: FunctionType | type) -> str:
    """Why it cannot be given to another process, and what to do."""
    return (
        f"{obj.__qualname__!r} is defined in a cell, and a process that is started by 'spawn' or "
        "'forkserver' cannot find it. Put it into a file (`%%writefile work.py`) and import it "
        "from there, or use multiprocessing.get_context('fork')."
    )
