"""Threads that libraries have made, of which Python knows nothing: whose they are."""

from __future__ import annotations

import bisect
import contextlib
import os
import re
import struct
from collections.abc import Container, Iterator
from dataclasses import dataclass

FUTEX = "202"
"""The number of the system call that an idle thread of a pool waits in, on x86-64."""
_STACK_BYTES = 8192
_CODE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) r-xp \S+ \S+ \S+ +(/\S.*)$", re.MULTILINE)
_EVERYBODYS = ("libc.", "libc-", "ld-", "libpthread", "libstdc++", "libgcc", "python", "libpython")
_FORK_SAFE = {
    "jemalloc_bg_thd": "",  # jemalloc makes it anew in the child
}
_FORK_SAFE_LIBRARIES = ("libarrow.",)
"""Whose pools are made anew in a fork; they must be idle at its moment."""


@dataclass(frozen=True, slots=True)
class NativeThread:
    """A thread of a library."""

    tid: int
    name: str
    library: str
    """The file of the library that it runs in; empty when that cannot be known."""
    is_idle: bool

    @property
    def description(self) -> str:
        """It by its name."""
        where = f" of {self.library}" if self.library else f" named {self.name!r}"
        return f"a native thread{where} (tid {self.tid})"

    @property
    def remedy(self) -> str:
        """What its user can do."""
        whose = self.library or self.name
        return f"close what uses {whose}, or limit its threads before it is first used"


def unsafe(known: Container[int | None]) -> list[NativeThread]:
    """The threads that a fork would lose, without those of Python, which are ``known``.

    Libraries that make their threads anew after a fork are not told.
    """
    tids = [int(name) for name in os.listdir("/proc/self/task")]
    unknown = [tid for tid in tids if tid not in known and not _is_fork_safe(tid)]
    if not unknown:
        return []
    code = _Code()
    found = [code.thread(tid) for tid in unknown]
    return [
        thread
        for thread in found
        if not (thread.is_idle and thread.library.startswith(_FORK_SAFE_LIBRARIES))
    ]


def _is_fork_safe(tid: int) -> bool:
    return _name(tid) in _FORK_SAFE


def _name(tid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/self/task/{tid}/comm") as file:
        return file.read().strip()
    return ""


class _Code:
    """Where the code of each library is in memory, and the stacks that lead there.

    The addresses on a thread's stack tell whose it is. They are read as a file is, so that a
    thread that ends meanwhile does no harm. Where there is no such file, nothing is known.
    """

    def __init__(self) -> None:
        with open("/proc/self/maps", "rb") as file:
            found = sorted(
                (int(m[1], 16), int(m[2], 16), m[3]) for m in _CODE.finditer(file.read())
            )
        self._starts = [start for start, _, _ in found]
        self._ranges = found

    def thread(self, tid: int) -> NativeThread:
        """What is known of one thread."""
        call, library = "", ""
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/self/task/{tid}/syscall") as file:
                call, *_, stack, _ = file.read().split()
            library = next(self._libraries(int(stack, 16)), "")
        return NativeThread(tid, _name(tid), library, call == FUTEX)

    def _libraries(self, stack: int) -> Iterator[str]:
        memory = os.open("/proc/self/mem", os.O_RDONLY)
        try:
            data = os.pread(memory, _STACK_BYTES, stack)
        finally:
            os.close(memory)
        for (word,) in struct.iter_unpack("Q", data[: len(data) // 8 * 8]):
            at = bisect.bisect_right(self._starts, word) - 1
            if at >= 0 and word < self._ranges[at][1]:
                name = os.path.basename(self._ranges[at][2].decode("utf-8", "replace"))
                if not name.startswith(_EVERYBODYS):
                    yield name
