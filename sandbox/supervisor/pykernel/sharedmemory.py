"""Memory that a fork would share instead of having its own: copied, or named."""

from __future__ import annotations

import ctypes
import mmap
import re
from dataclasses import dataclass

from sandbox.supervisor.pykernel.blockers import Blocker

MAX_COPY_BYTES = 16 * 1024**2
_WRITABLE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) (r?-?w.)s \S+ \S+ \S+ *(.*)$", re.MULTILINE)
_NOBODYS = re.compile(r"/dev/zero \(deleted\)|/dev/shm/sem\.\S+ \(deleted\)")
"""What no other process can find, and none has: a process that was started is a blocker itself."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_MAP_FIXED = 0x10


@dataclass(frozen=True, slots=True)
class SharedRegion:
    """Memory that is shared with the processes that are yet to be started: locks, mostly."""

    start: int
    protection: int
    content: bytes

    def make_own(self) -> None:
        """In a fork: have the same at the same place, shared with nobody but its own children.

        Raises:
            OSError: The system refused.
        """
        flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _MAP_FIXED
        size = len(self.content)
        if _libc.mmap(self.start, size, self.protection | mmap.PROT_WRITE, flags, -1, 0) in (
            None,
            ctypes.c_void_p(-1).value,
        ):
            raise OSError(ctypes.get_errno(), "shared memory cannot be made anew")
        ctypes.memmove(self.start, self.content, size)


def survey() -> tuple[list[SharedRegion], list[Blocker]]:
    """The regions that a fork makes anew, with what is in them now, and what it cannot have."""
    with open("/proc/self/maps", "rb") as file:
        maps = file.read()
    # Mostly there is none, and to match every line takes longer than to read them.
    found = _WRITABLE.findall(maps) if b"w-s " in maps or b"wxs " in maps else []
    regions: list[SharedRegion] = []
    blockers: list[Blocker] = []
    room = MAX_COPY_BYTES
    for start, end, mode, name in found:
        path = name.decode("utf-8", "replace")
        first = int(start, 16)
        size = int(end, 16) - first
        if path and not _NOBODYS.fullmatch(path):
            what = f"the shared mapping of {path}"
            remedy = "flush() and close it, or map it privately (for NumPy: mode 'c')"
        elif mode[:1] != b"r":
            what, remedy = "a shared mapping that cannot be read", "close it"
        elif size > room:
            what = f"{size >> 20} MiB of shared memory (mmap or multiprocessing)"
            remedy = "close it; up to 16 MiB in all are copied"
        else:
            room -= size
            bits = mmap.PROT_READ | (mmap.PROT_EXEC if b"x" in mode else 0)
            regions.append(SharedRegion(first, bits, ctypes.string_at(first, size)))
            continue
        blockers.append(Blocker("shared memory", what, remedy))
    return regions, blockers
