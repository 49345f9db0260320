"""What an attack may use where it runs: this module's text goes in front of every attack.

It is executed inside the sandbox by the image's own Python, with the standard library only. A call
is made by number, not through libc: no wrapper stands between the attack and the kernel.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import platform
import signal
import struct
from collections.abc import Callable
from typing import Any

X86_64 = platform.machine() == "x86_64"

# name: (x86-64, arm64); None where the architecture never had the call.
NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "clone": (56, 220),
    "ptrace": (101, 117),
    "ioctl": (16, 29),
    "msgget": (68, 186),
    "syslog": (103, 116),
    "setuid": (105, 146),
    "mknodat": (259, 33),
    "personality": (135, 92),
    "vhangup": (153, 58),
    "modify_ldt": (154, None),
    "pivot_root": (155, 41),
    "adjtimex": (159, 171),
    "chroot": (161, 51),
    "sync": (162, 81),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "mount": (165, 40),
    "umount2": (166, 39),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, None),
    "ioperm": (173, None),
    "init_module": (175, 105),
    "delete_module": (176, 106),
    "quotactl": (179, 60),
    "io_setup": (206, 0),
    "lookup_dcookie": (212, 18),
    "clock_settime": (227, 112),
    "mbind": (237, 235),
    "mq_open": (240, 180),
    "kexec_load": (246, 104),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "migrate_pages": (256, 238),
    "unshare": (272, 97),
    "vmsplice": (278, 75),
    "move_pages": (279, 239),
    "perf_event_open": (298, 241),
    "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "clock_adjtime": (305, 266),
    "setns": (308, 268),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "finit_module": (313, 273),
    "memfd_create": (319, 279),
    "kexec_file_load": (320, 294),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "pidfd_open": (434, 434),
    "clone3": (435, 435),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "mount_setattr": (442, 442),
    "quotactl_fd": (443, 443),
    "memfd_secret": (447, 447),
    "process_mrelease": (448, 448),
}

_libc = ctypes.CDLL(None, use_errno=True)


def raw(number: int, *arguments: int | bytes | None) -> int | str:
    """Make a system call by number: its result, or the name of its error."""
    ctypes.set_errno(0)
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = _libc.syscall(ctypes.c_long(number), *words)
    return result if result >= 0 else errno.errorcode[ctypes.get_errno()]


def call(name: str, *arguments: int | bytes | None) -> int | str:
    """Make a system call by name; ``ENOSYS`` where the architecture has none of that name."""
    number = NUMBERS[name][0 if X86_64 else 1]
    return "ENOSYS" if number is None else raw(number, *arguments)


def in_child(attack: Callable[[], Any]) -> Any:
    """Run in a child: what it returned, or ``{"signal": name}`` when it was killed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            answer = attack()
        except OSError as exc:
            answer = errno.errorcode.get(exc.errno or 0, str(exc))
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as stream:
        answer = stream.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return {"signal": signal.Signals(os.WTERMSIG(status)).name}
    return json.loads(answer)


def attempt(attack: Callable[[], Any]) -> Any:
    """Run here: what it returned, or the name of the OSError it raised."""
    try:
        return attack()
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, str(exc))


def run_machine_code(code: bytes) -> int:
    """Write code to an executable page and call it without arguments; returns eax."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return ctypes.CFUNCTYPE(ctypes.c_int)(address)()


def int80(number: int, *arguments: int) -> int:
    """Make a 32-bit system call through the old gate: minus errno, or its result."""
    first, second, third = (*arguments, 0, 0, 0)[:3]
    return run_machine_code(
        b"\x53"  # push rbx, which the caller owns
        + b"\xb8"
        + struct.pack("<I", number)
        + b"\xbb"
        + struct.pack("<I", first)
        + b"\xb9"
        + struct.pack("<I", second)
        + b"\xba"
        + struct.pack("<I", third)
        + b"\xcd\x80\x5b\xc3"  # int 0x80; pop rbx; ret
    )


def status_of(pid: int | str = "self") -> dict[str, str]:
    """The fields of /proc/PID/status."""
    with open(f"/proc/{pid}/status") as lines:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def supervisor_pid() -> int:
    """The process that runs /opt/sandbox: what an attack on the session's own machinery aims at."""
    for name in sorted(filter(str.isdigit, os.listdir("/proc")), key=int):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as stream:
                words = stream.read().split(b"\0")
        except OSError:
            continue
        if b"/opt/sandbox" in words and not words[0].endswith(b"init"):
            return int(name)
    raise LookupError("no supervisor is visible")


def readable(path: str, limit: int = 200) -> str:
    """The beginning of a file, or the name of the error that reading it gave."""
    try:
        with open(path, "rb") as stream:
            return stream.read(limit).decode("latin-1")
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, str(exc))


def writable(path: str, data: bytes = b"") -> str:
    """``ok``, or the name of the error that opening for writing (and writing) gave."""
    try:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            if data:
                os.write(descriptor, data)
        finally:
            os.close(descriptor)
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, str(exc))
    return "ok"


def through(*pieces: bytes, timeout_s: float = 15) -> str:
    """Send bytes to the way out, one piece after another, and return all that comes back."""
    import socket

    with socket.create_connection(("127.0.0.1", 3128), timeout=timeout_s) as way:
        answer = b""
        try:
            for piece in pieces:
                way.sendall(piece)
                answer += way.recv(65536)
            while data := way.recv(65536):
                answer += data
        except OSError as exc:
            answer += f" [{type(exc).__name__}]".encode()
    return answer.decode("latin-1")


def connect(authority: str) -> bytes:
    """A request for a tunnel."""
    return f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode("latin-1")


def status(answer: str) -> int:
    """The status of an HTTP answer; 0 when it is none."""
    words = answer.split(" ", 2)
    return int(words[1]) if len(words) > 1 and words[0].startswith("HTTP/") else 0
