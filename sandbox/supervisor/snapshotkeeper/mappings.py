"""Whether a file's times tell that it was changed: not what a program writes through a mapping.

Linux notes the time when a page of a mapping is written to for the first time, and no later write
to that page; gVisor none of them. So a file that some program has mapped is compared by its bytes.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress

_PAGE = 4096


def tells_of_writes(folder: int) -> bool:
    """Whether the filesystem of a folder notes the time of a first write through a mapping.

    Where that cannot be tried, as on a full disk, it counts as one that does not.
    """
    try:
        fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError:
        return False
    try:
        os.write(fd, bytes(_PAGE))
        with mmap.mmap(fd, _PAGE) as mapped:
            os.utime(fd, ns=(0, 0))
            mapped[0] = 1
            return os.fstat(fd).st_mtime_ns != 0
    except OSError:
        return False
    finally:
        os.close(fd)


def mapped_inodes() -> frozenset[int] | None:
    """The inodes of all files that a process has mapped to write to; None when not all can be seen.

    Of which filesystem they are is not looked at: one too many costs a comparison.
    """
    found: set[int] = set()
    own = os.getpid()
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == own:
            continue
        try:
            with open(f"/proc/{name}/maps", "rb") as maps:
                for line in maps:
                    fields = line.split(None, 5)
                    if b"w" in fields[1] and b"s" in fields[1]:
                        found.add(int(fields[4]))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        except PermissionError:
            if not _is_anothers(name):
                return None
    return frozenset(found)


def _is_anothers(pid: str) -> bool:
    """Whether a process is of another user, as the container's first may be; or has ended."""
    with suppress(OSError):
        return os.stat(f"/proc/{pid}").st_uid != os.getuid()
    return True
