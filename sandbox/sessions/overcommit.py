"""What sessions may use of their host together, against what it has. Pure but for what it reads
of this machine's kernel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sandbox.policy import Policy
from sandbox.policy.units import format_size
from sandbox.runtimes.base import EngineInfo

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Amounts:
    """Of each thing that a host has once for all sessions: memory, processes, open files.

    For a host, 0 is what is not known.
    """

    memory_bytes: int
    processes: int
    files: int

    def __mul__(self, times: int) -> Amounts:
        return Amounts(self.memory_bytes * times, self.processes * times, self.files * times)


def of_host(engine: EngineInfo, proc: Path = PROC) -> Amounts:
    """What the engine's host has.

    Its bounds of processes and files are known where it is this machine: an engine says only how
    much memory its own has, to the byte.
    """
    if memory_of_engine(engine, "MemTotal", proc) is None:
        return Amounts(engine.memory_bytes, 0, 0)
    kernel = proc / "sys/kernel"
    return Amounts(
        engine.memory_bytes,
        min(_number(kernel / "pid_max"), _number(kernel / "threads-max")),
        _number(proc / "sys/fs/file-max"),
    )


def memory_of_engine(engine: EngineInfo, what: str, proc: Path = PROC) -> int | None:
    """A figure of the kernel's about memory, bytes; None where the engine's host is not known to
    be this machine."""
    fields = _fields(proc / "meminfo")
    is_here = fields.get("MemTotal:", 0) * 1024 == engine.memory_bytes and engine.memory_bytes > 0
    return fields.get(f"{what}:", 0) * 1024 if is_here and f"{what}:" in fields else None


def of_sessions(policies: Iterable[Policy]) -> Amounts:
    """What sessions of these policies may use together, if each uses all that it may."""
    limits = [policy.limits for policy in policies]
    return Amounts(
        sum(each.memory_bytes for each in limits),
        sum(each.pids for each in limits),
        sum(each.pids * each.open_files for each in limits),
    )


def largest(policies: Iterable[Policy]) -> Amounts:
    """The most that one session of any of these policies may use of each."""
    each = [of_sessions([policy]) for policy in policies]
    return Amounts(
        max((one.memory_bytes for one in each), default=0),
        max((one.processes for one in each), default=0),
        max((one.files for one in each), default=0),
    )


def missing(host: Amounts, wanted: Amounts) -> list[str]:
    """What a host does not have, each in words; empty when it has it all."""
    return [
        f"{say(wants)} {what}, and the host has {say(has)}"
        for what, wants, has, say in (
            ("of memory", wanted.memory_bytes, host.memory_bytes, _size),
            ("processes", wanted.processes, host.processes, "{:,}".format),
            ("open files", wanted.files, host.files, "{:,}".format),
        )
        if has and wants > has
    ]


def _size(size_bytes: int) -> str:
    return format_size(max(1, size_bytes >> 20) << 20)


def _fields(path: Path) -> dict[str, int]:
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdecimal()}


def _number(path: Path) -> int:
    try:
        text = path.read_text().strip()
    except OSError:
        return 0
    return int(text) if text.isdecimal() else 0
