"""What a sandbox must refuse, tried: in a process that is then thrown away.

Every try is one that changes nothing outside that process, even where it is allowed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import socket
import stat
import struct
from collections.abc import Callable, Iterable
from typing import Any

_AF_ALG = 38
_AF_VSOCK = 40
_NETLINK_NETFILTER = 12
_SO_ATTACH_FILTER = 26
_SO_ATTACH_BPF = 50
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_SECCOMP_SET_MODE_FILTER = 1
_CLONE_NEWUSER = 0x10000000
_PTRACE_TRACEME = 0
_UFFD_USER_MODE_ONLY = 1
_SYSCALLS = {
    "x86_64": {
        **{"bpf": 321, "chroot": 161, "clone_newuser": 56, "clone3": 435, "io_uring_setup": 425},
        **{"keyctl": 250, "mount": 165, "perf_event_open": 298, "prctl_seccomp": 157},
        **{"ptrace": 101, "seccomp": 317, "setns": 308, "setuid": 105, "unshare": 272},
        **{"userfaultfd": 323},
    },
    "aarch64": {
        **{"bpf": 280, "chroot": 51, "clone_newuser": 220, "clone3": 435, "io_uring_setup": 425},
        **{"keyctl": 219, "mount": 40, "perf_event_open": 241, "prctl_seccomp": 167},
        **{"ptrace": 117, "seccomp": 277, "setns": 268, "setuid": 146, "unshare": 97},
        **{"userfaultfd": 282},
    },
}
_MARK = ".sandbox-probe"
# Where a writable filesystem would do the most harm, if it is not a mount of its own anyway.
_PLACES = ("/", "/dev", "/etc", "/home", "/opt/sandbox", "/proc", "/sys", "/usr", "/var")


def forbidden() -> dict[str, str]:
    """What becomes of calls that a sandbox must refuse: an errno's name, or ``allowed``."""
    libc = ctypes.CDLL(None, use_errno=True)
    numbers = _SYSCALLS.get(platform.machine(), {})

    def call(name: str, *arguments: Any, got_through: int = 0) -> str:
        """Make it; ``got_through`` is the error of who may make it, for these arguments."""
        if name not in numbers:
            return "not tried"
        ctypes.set_errno(0)
        result = libc.syscall(numbers[name], *arguments)
        return "allowed" if result >= 0 else _answer(ctypes.get_errno(), got_through)

    parameters = ctypes.create_string_buffer(256)
    found = {
        "attach_bpf": _tried(_attach_a_program, got_through=errno.EBADF),
        "attach_filter": _tried(_attach_a_filter),
        "bpf": call("bpf", 0, parameters, 48, got_through=errno.EINVAL),
        "clone3": call("clone3", parameters, 0, got_through=errno.EINVAL),
        "io_uring_setup": call("io_uring_setup", 1, parameters),
        "keyctl": call("keyctl", 0, -3, 0, 0, 0, got_through=errno.ENOKEY),
        "mknod": _tried(_make_device),
        # Who may mount is told that there is no such filesystem; nobody gets a mount.
        "mount": call("mount", b"none", b"/", b"nosuch", 0, None, got_through=errno.ENODEV),
        "perf_event_open": call("perf_event_open", None, 0, -1, -1, 0, got_through=errno.EFAULT),
        # No filter is given, which who may install one is told.
        "prctl_seccomp": call(
            "prctl_seccomp",
            *(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, None, 0, 0),
            got_through=errno.EFAULT,
        ),
        "seccomp": call("seccomp", _SECCOMP_SET_MODE_FILTER, 0, None, got_through=errno.EFAULT),
        "setns": call("setns", -1, 0, got_through=errno.EBADF),
        "socket_alg": _socket(_AF_ALG, socket.SOCK_SEQPACKET),
        "socket_buffers": _grow_a_buffer(),
        "socket_netlink": _socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "socket_netfilter": _socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER),
        "socket_packet": _socket(socket.AF_PACKET, socket.SOCK_DGRAM),
        "socket_raw": _socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "socket_vsock": _socket(_AF_VSOCK, socket.SOCK_STREAM),
        "userfaultfd": call("userfaultfd", _UFFD_USER_MODE_ONLY),
        "ptrace": call("ptrace", _PTRACE_TRACEME, 0, 0, 0),
        "chroot": call("chroot", b"/"),
        "setuid": call("setuid", 0),
    }
    parent = os.getpid()
    found["clone_newuser"] = call("clone_newuser", _CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)
    if os.getpid() != parent:  # the process that should not have come to be
        os._exit(0)
    return {**found, "unshare": call("unshare", _CLONE_NEWUSER)}


def writable(mounts: Iterable[str]) -> list[str]:
    """Of the mounts and the folders of the system, those in which something could be written."""
    return sorted(place for place in {*mounts, *_PLACES} if _can_write(place))


def creates_in_root() -> int:
    """The error of creating a file in the root folder; 0 when there was none."""
    try:
        _create("/")
    except OSError as exc:
        return exc.errno or errno.EIO
    return 0


def _can_write(place: str) -> bool:
    try:
        mode = os.stat(place).st_mode
        if stat.S_ISDIR(mode):
            _create(place)
        elif stat.S_ISREG(mode):
            os.close(os.open(place, os.O_WRONLY | os.O_NONBLOCK))
        else:
            return False  # the null device over a file that is hidden
    except OSError:
        return False
    return True


def _create(folder: str) -> None:
    path = os.path.join(folder, f"{_MARK}-{os.getpid()}")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    os.unlink(path)


def _make_device() -> None:
    path = f"/tmp/{_MARK}-{os.getpid()}-null"  # the container's own
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.unlink(path)


def _attach_a_filter() -> None:
    everything = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xFFFFFFFF))
    program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(everything))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unconnected:
        unconnected.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _attach_a_program() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unconnected:
        unconnected.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, -1)


def _grow_a_buffer() -> str:
    """``allowed``, or ``no effect``: the answer of a bound that refuses nothing."""
    option = socket.SOL_SOCKET, socket.SO_RCVBUF
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as growing:
        before = growing.getsockopt(*option)
        growing.setsockopt(*option, before)  # of which the kernel doubles what it is asked for
        return "allowed" if growing.getsockopt(*option) > before else "no effect"


def _socket(family: int, kind: int, protocol: int = 0) -> str:
    return _tried(lambda: socket.socket(family, kind, protocol).close())


def _tried(attempt: Callable[[], None], got_through: int = 0) -> str:
    try:
        attempt()
    except OSError as exc:
        return _answer(exc.errno or 0, got_through)
    return "allowed"


def _answer(number: int, got_through: int = 0) -> str:
    if number == got_through:
        return "allowed"
    return errno.errorcode.get(number, "refused")
