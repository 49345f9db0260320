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
from sandbox.container.labels import LABEL_MANAGED


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


def containers() -> set[str]:
    """The ids of all sandboxes."""
    command = ["docker", "ps", "-q", "--no-trunc", "--filter", f"label={LABEL_MANAGED}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


async def idle_memory(client: Client) -> Figure:
    """The memory of everything that an idle session with one used kernel runs, its shim included.

    As though it were alone on the machine: files that its processes have in memory are counted
    once, whole. With PSS the figure would depend on how many sandboxes run beside it, since they
    share these: 76 MB alone, 64, 59 and 57 beside one, two and three others of the same image.
    """
    before = containers()
    session = (await call(client, "open_session", reuse=False))["session_id"]
    await call(client, "execute_code", code="1+1", session_id=session)
    await anyio.sleep(2)
    (container,) = containers() - before
    shims = [
        process
        for process in psutil.process_iter(["cmdline"])
        if (words := process.info["cmdline"])
        and "containerd-shim" in words[0]
        and container in words
    ]
    check(len(shims) == 1, f"expected one shim of {container}, found {len(shims)}")
    sizes: dict[str, int] = {}
    files: dict[tuple[str, str], int] = {}
    proportional = 0
    for process in [*shims, *shims[0].children(recursive=True)]:
        found = memory_of(process.pid)
        sizes[process.name()] = sizes.get(process.name(), 0) + found.own
        proportional += found.proportional
        for place, size in found.files.items():
            files[place] = max(files.get(place, 0), size)
    await call(client, "close_session", session_id=session)
    parts = [*sorted(sizes.items()), ("files", sum(files.values()))]
    detail = ", ".join(f"{name} {size / MEGABYTE:.1f}" for name, size in parts)
    total = sum(size for _, size in parts) / MEGABYTE
    detail += f"; PSS {proportional / MEGABYTE:.1f} beside {len(before)} more sandboxes"
    return Figure("idle session with a kernel", total, "MB", 90, True, f"MB: {detail}")
