"""What an idle session takes of the machine's memory."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio
import psutil
from mcp import Client

from benchmarks.measures import MEGABYTE, call, check
from benchmarks.report import Figure
from sandbox.container.labels import LABEL_MANAGED, LABEL_UID

SETTLE_S = 2
"""Until a session that was used is idle."""


@dataclass(frozen=True)
class Memory:
    """What a process takes, told apart by who else may have it too."""

    own: int
    """Bytes that are of no file; those shared with forks divided among them."""
    files: Mapping[tuple[str, str], int]
    """Bytes of files in memory, by file and place in it."""
    proportional: int
    """All of it, shared pages divided among all processes of the machine that have them (PSS)."""


def memory_of(pid: int) -> Memory:
    """The memory of a process, as its kernel counts it (proc_pid_smaps(5))."""
    totals: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, size, _ = line.split()
        totals[name] = int(size) * 1024
    files: dict[tuple[str, str], int] = {}
    place, resident = ("", ""), 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):  # addresses, rights, offset, device, inode, path
            place = (" ".join(words[5:]), words[2])
        elif words[0] == "Rss:":
            resident = int(words[1]) * 1024
        elif words[0] == "Anonymous:" and place[0].startswith("/"):
            files[place] = files.get(place, 0) + resident - int(words[1]) * 1024
    own = totals["Pss_Anon:"] + totals["Pss_Shmem:"]
    return Memory(own, files, totals["Pss:"])


def containers(label: str) -> list[str]:
    """The ids of the containers with a label."""
    command = ["docker", "ps", "-q", "--no-trunc", "--filter", f"label={label}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.split()


def part_of(process: psutil.Process) -> str:
    """What a process of a sandbox is."""
    words = process.cmdline()
    if "python" not in process.name():
        return process.name()
    if any(word.endswith("bridge.py") for word in words):
        return "bridge"
    parent = process.parent()
    return "kernel" if parent and parent.cmdline() == words else "supervisor"


async def idle_memory(client: Client) -> list[Figure]:
    """The memory of everything that an idle session with one used kernel runs, its shim included.

    Once as the machine counts it: what several processes share is divided among them (PSS), those
    of the session itself and those of other sandboxes, which makes it depend on how many there
    are. And once as though it were alone: files that its processes have in memory are counted
    once, whole.
    """
    session = (await call(client, "open_session", policy="bench", reuse=False))["session_id"]
    told = await call(client, "execute_code", code="__import__('os').getuid()", session_id=session)
    (container,) = containers(f"{LABEL_UID}={told['text']}")
    await anyio.sleep(SETTLE_S)
    shims = [
        process
        for process in psutil.process_iter(["cmdline"])
        if (words := process.info["cmdline"])
        and "containerd-shim" in words[0]
        and container in words
    ]
    check(len(shims) == 1, f"expected one shim of {container}, found {len(shims)}")
    own: dict[str, int] = {}
    proportional: dict[str, int] = {}
    files: dict[tuple[str, str], int] = {}
    for process in [*shims, *shims[0].children(recursive=True)]:
        found, part = memory_of(process.pid), part_of(process)
        own[part] = own.get(part, 0) + found.own
        proportional[part] = proportional.get(part, 0) + found.proportional
        for place, size in found.files.items():
            files[place] = max(files.get(place, 0), size)
    others = len(containers(LABEL_MANAGED)) - 1
    await call(client, "close_session", session_id=session)
    pss, parts = _sum(proportional)
    alone, its_parts = _sum({**own, "files": sum(files.values())})
    parts += f"; beside {others} more sandboxes"
    return [
        Figure("idle session, all in (PSS)", pss, "MB", 45, True, parts),
        Figure("idle session as though alone", alone, "MB", 90, True, its_parts),
    ]


def _sum(sizes: Mapping[str, int]) -> tuple[float, str]:
    """The sum in megabytes, and its parts in words."""
    parts = ", ".join(f"{name} {size / MEGABYTE:.1f}" for name, size in sorted(sizes.items()))
    return sum(sizes.values()) / MEGABYTE, f"MB: {parts}"
