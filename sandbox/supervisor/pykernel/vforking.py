"""A fork through a process that borrows this one's memory, which ``os`` has no function for.

The process between is made as vfork(2) makes it: this one waits while that forks and ends. It has
no tables of pages to be copied and torn down again. What returns twice into Python on one stack
would ruin the frames of this process, so what it does is a few instructions of its own: it calls
fork() of the C library, whose handlers run as always, and never returns but in the fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
from collections.abc import Callable
from typing import Any

_CODE = {
    "x86_64": """
        53                push rbx              ; the stack is aligned now
        48 89 fb          mov rbx, rdi          ; fork(), which is given
        b8 38 00 00 00    mov eax, 56           ; clone(2)
        bf 11 41 00 00    mov edi, 0x4111       ; CLONE_VFORK | CLONE_VM | SIGCHLD
        31 f6             xor esi, esi          ; on this stack
        31 d2             xor edx, edx
        4d 31 d2          xor r10, r10
        4d 31 c0          xor r8, r8
        0f 05             syscall
        85 c0             test eax, eax
        75 14             jnz return            ; this process, or there is none between
        ff d3             call rbx
        85 c0             test eax, eax
        74 0e             jz return             ; the fork
        c1 e8 1f          shr eax, 31           ; 1 if fork() has failed
        89 c7             mov edi, eax
        b8 e7 00 00 00    mov eax, 231          ; exit_group(2)
        0f 05             syscall
        0f 0b             ud2
        5b                pop rbx               ; return
        c3                ret
    """
}
"""What the process between runs, by machine; elsewhere it is an ordinary fork."""

_api: Any = ctypes.pythonapi


def fork_through() -> tuple[int, bool] | None:
    """Fork as an orphan: the number of the process between, and whether this is the fork.

    None where that cannot be done. All signals must be blocked.

    Raises:
        OSError: No process could be made.
    """
    if _routine is None:
        return None
    fork = ctypes.cast(ctypes.CDLL(None).fork, ctypes.c_void_p)
    _api.PyOS_BeforeFork()
    between = _routine(fork)
    if between == 0:
        _api.PyOS_AfterFork_Child()
        return 0, True
    _api.PyOS_AfterFork_Parent()
    if between < 0:
        raise OSError(-between, os.strerror(-between))
    return between, False


def _made() -> Callable[..., int] | None:
    source = _CODE.get(platform.machine())
    if source is None:
        return None
    code = bytes.fromhex("".join(line[:24] for line in source.splitlines()))
    # Never to be written and run at once: whatever forbids that need not be asked.
    with contextlib.suppress(OSError, ValueError):
        memory = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.write(code)
        at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        protect = ctypes.CDLL(None).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        if protect(at, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC) == 0:
            routine: Any = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(at)
            routine.memory = memory
            return routine
    return None


_routine = _made()
