"""What this container is really like, measured by trying, in a process that is then thrown away."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import json
import os
import resource
import signal
import socket
import stat
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from sandbox.errors import InfrastructureError
from sandbox.link.stream import Stream
from sandbox.nofollow import walk
from sandbox.supervisor import tries
from sandbox.supervisor.children import Children
from sandbox.supervisor.pipes import Descriptor
from sandbox.supervisor.preload import PRELOADED
from sandbox.supervisor.requests import answer, strings

LIMIT_S = 5.0

_PR_GET_NO_NEW_PRIVS = 39
_RLIMITS = {
    "nofile": resource.RLIMIT_NOFILE,
    "core": resource.RLIMIT_CORE,
    "fsize": resource.RLIMIT_FSIZE,
    "memlock": resource.RLIMIT_MEMLOCK,
    "nproc": resource.RLIMIT_NPROC,
    "msgqueue": 12,  # of Linux; the module has no name for it
}
_CGROUP_FILES = {
    "memory_limit": ("memory.max", "memory/memory.limit_in_bytes"),
    "pids_limit": ("pids.max", "pids/pids.max"),
}


# Of a disk, in bytes a second: a line for each, under version 2 with more than rates in it.
_RATE_FILES = ("io.max", "blkio/blkio.throttle.{}_bps_device")
_SYSCTLS = ("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem")


class Probe:
    """The operation ``probe``."""

    def __init__(self, children: Children) -> None:
        self._children = children

    async def run(self, stream: Stream) -> None:
        """``probe``"""
        with PRELOADED.held():
            facts = await self._measured(strings(stream.request, "places") or [])
            await answer(stream, **facts)

    async def _measured(self, places: list[str]) -> dict[str, Any]:
        reading, writing = os.pipe()
        output = Descriptor(reading)
        try:
            pid = _fork(writing, places)
        except OSError as exc:
            output.close()
            raise InfrastructureError(f"No process for the probe: {exc.strerror}.") from exc
        finally:
            os.close(writing)
        child = self._children.adopt(pid, self._children.mark())
        raw = b""
        try:
            async with asyncio.timeout(LIMIT_S):
                while data := await output.read():
                    raw += data
            return json.loads(raw)
        except (TimeoutError, ValueError) as exc:
            raise InfrastructureError("The probe did not report.") from exc
        finally:
            output.close()
            child.signal(signal.SIGKILL)


def _fork(writing: int, places: list[str]) -> int:
    old = signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.valid_signals()))
    try:
        pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
        raise
    if pid == 0:
        try:
            # Nothing is inherited that the tries could harm, and no handler of the event loop.
            signal.set_wakeup_fd(-1)
            os.dup2(writing, 1)
            os.closerange(2, os.sysconf("SC_OPEN_MAX"))
            raw = json.dumps(measure(places)).encode()
            while raw:
                raw = raw[os.write(1, raw) :]
        finally:
            os._exit(0)
    signal.pthread_sigmask(signal.SIG_SETMASK, old)
    return pid


def measure(places: Sequence[str] = ()) -> dict[str, Any]:
    """All facts of ``docs/link.md``; call it in a process that can be thrown away."""
    status = _status()
    mounts = _mounts()
    return {
        "uid": os.getuid(),
        "gid": os.getgid(),
        "groups": os.getgroups(),
        "capabilities": {
            "effective": status["CapEff"],
            "permitted": status["CapPrm"],
            "bounding": status["CapBnd"],
            "inheritable": status["CapInh"],
            "ambient": status.get("CapAmb", "0"),
        },
        "no_new_privs": _no_new_privs(),
        "seccomp_mode": int(status.get("Seccomp", "0")),
        "interfaces": _interfaces(),
        "routes": _routes(),
        "resolvers": _resolvers(),
        "root_read_only": _root_read_only(mounts),
        "writable": tries.writable(
            mount["target"] for mount in mounts if mount["target"] not in places
        ),
        "devices": _devices(),
        "mounts": mounts,
        "places": {path: _place(path) for path in places},
        "memory_limit": _limit("memory_limit"),
        "pids_limit": _limit("pids_limit"),
        "disk_read": _rate("read"),
        "disk_write": _rate("write"),
        "sysctls": {name: _sysctl(name) for name in _SYSCTLS},
        **{name: resource.getrlimit(limit)[1] for name, limit in _RLIMITS.items()},
        "hostname": socket.gethostname(),
        "environment": sorted(os.environ),
        "forbidden": tries.forbidden(),  # last: what is allowed changes this process
    }


def _status() -> dict[str, str]:
    with open("/proc/self/status") as file:
        pairs = (line.partition(":") for line in file)
        return {name: value.strip() for name, _, value in pairs}


def _no_new_privs() -> bool:
    # Asked of the kernel, since gVisor's /proc/self/status has no line for it.
    return ctypes.CDLL(None).prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1


def _interfaces() -> list[str]:
    with open("/proc/self/net/dev") as file:
        return sorted(line.partition(":")[0].strip() for line in file if ":" in line)


def _routes() -> list[str]:
    """Every way out of the loopback interface, IPv4 and IPv6, as the kernel writes it."""
    found: list[str] = []
    for path, device in (("/proc/self/net/route", 0), ("/proc/self/net/ipv6_route", -1)):
        try:
            with open(path) as file:
                lines = [line.split() for line in file]
        except OSError:
            continue
        found += [" ".join(line) for line in lines if line and line[device] not in ("lo", "Iface")]
    return found


def _root_read_only(mounts: list[dict[str, Any]]) -> bool:
    # gVisor looks at the permissions first and knows no flag, so there the mount table tells.
    refused = tries.creates_in_root()
    return refused == errno.EROFS or bool(
        refused and any(mount["target"] == "/" and mount["options"][0] == "ro" for mount in mounts)
    )


def _devices() -> list[str]:
    """Every device below /dev that a terminal is not, by its path."""
    found: list[str] = []
    for folder, _, names in os.walk("/dev"):
        found += [f"{folder}/{name}" for name in names if _is_device(f"{folder}/{name}")]
    return sorted(path for path in found if not path.startswith("/dev/pts/"))


def _is_device(path: str) -> bool:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return True  # what cannot be looked at is told
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _resolvers() -> list[str]:
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        return []
    return [line[1] for line in lines if len(line) > 1 and line[0] == "nameserver"]


def _mounts() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            target, options = before.split()[4:6]
            fstype, _, *rest = after.split()
            both = [*options.split(","), *(rest[0].split(",") if rest else ())]
            found.append({"target": target, "fstype": fstype, "options": list(dict.fromkeys(both))})
    return found


def _place(path: str) -> dict[str, Any]:
    """What the parts of a path are, and what became of the try to make a file there."""
    try:
        steps = [astuple(step) for step in walk(path)]
    except OSError as exc:
        return {"steps": [], "write": errno.errorcode.get(exc.errno or 0, "refused")}
    attempt = f"{path}/.sandbox-probe-{os.urandom(8).hex()}"
    try:
        os.close(os.open(attempt, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as exc:
        return {"steps": steps, "write": errno.errorcode.get(exc.errno or 0, "refused")}
    os.unlink(attempt)
    return {"steps": steps, "write": "allowed"}


def _limit(name: str) -> int | None:
    for file in _CGROUP_FILES[name]:
        try:
            with open(f"/sys/fs/cgroup/{file}") as limit:
                value = limit.read().strip()
        except OSError:
            continue
        return int(value) if value.isdigit() else -1  # "max"
    return None


def _rate(way: str) -> int | None:
    """The lowest rate of any disk; -1 when none has one, None when that is not visible."""
    for file in _RATE_FILES:
        try:
            with open(f"/sys/fs/cgroup/{file.format(way)}") as lines:
                words = [word for line in lines for word in line.split()[1:]]
        except OSError:
            continue
        rates = [word.removeprefix(f"{way[0]}bps=") for word in words]
        return min((int(rate) for rate in rates if rate.isdigit()), default=-1)
    return None


def _sysctl(name: str) -> str | None:
    try:
        with open(f"/proc/sys/{name.replace('.', '/')}") as file:
            return " ".join(file.read().split())
    except OSError:
        return None
