"""What a controller has at a moment, of all that could leak, and whether it has become more.

Counted are the tasks, threads, descriptors and memory of its process, the containers and volumes
that are its own, the processes and exec'd processes in containers that stay, and temporary files.
The tasks are told by a controller that runs as ``benchmarks.counted``.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import docker
import docker.errors

from sandbox.container.labels import LABEL_OWNER
from tests.support.neighbour import MIB, Usage

TELL_S = 20.0
TASKS = 8
MOST = {"threads": 16, "descriptors": 16, "files": 4, "containers": 0, "volumes": 0}
MOST |= {"execs": 1, "processes": 4}
"""How many more there may be, for some come and go: threads wait in pools for work, and the
official client's commands and terminals are processes."""
MEMORY_BYTES = 32 * MIB


@dataclass(frozen=True)
class Census:
    """What there was at one moment."""

    tasks: Counter[str] = field(default_factory=Counter[str])
    """Of the event loop, by what they run."""
    threads: int = 0
    descriptors: int = 0
    memory_bytes: int = 0
    containers: int = 0
    volumes: int = 0
    """That the containers have."""
    execs: int = 0
    """Exec'd processes that run in them."""
    processes: int = 0
    """All that run in them."""
    files: int = 0
    """Temporary ones."""

    def line(self) -> str:
        """It in one line."""
        return (
            f"tasks {self.tasks.total()}, threads {self.threads}, descriptors {self.descriptors}, "
            f"memory {self.memory_bytes / MIB:.1f} MiB, containers {self.containers}, volumes "
            f"{self.volumes}, execs {self.execs}, processes {self.processes}, files {self.files}"
        )

    def grown_since(self, before: Census) -> list[str]:
        """What has become more than it may, between two moments at which as much was going on."""
        found: list[str] = []
        more_tasks = self.tasks - before.tasks
        if self.tasks.total() > before.tasks.total() + TASKS:
            told = ", ".join(f"{count} × {name}" for name, count in more_tasks.most_common(5))
            found.append(f"{self.tasks.total() - before.tasks.total()} more tasks: {told}")
        for name, most in MOST.items():
            if (more := getattr(self, name) - getattr(before, name)) > most:
                found.append(f"{more} more {name}")
        if (more := self.memory_bytes - before.memory_bytes) > MEMORY_BYTES:
            found.append(f"{more / MIB:.1f} MiB more memory")
        return found


def trend_bytes(sizes: Sequence[int]) -> float:
    """By how much memory grows from one of these to the next: the slope of the line that fits."""
    middle = (len(sizes) - 1) / 2
    spread = sum((n - middle) ** 2 for n in range(len(sizes)))
    if not spread:
        return 0.0
    return sum((n - middle) * size for n, size in enumerate(sizes)) / spread


def census(pid: int, counts: Path, owner: str, temporary: Path) -> Census:
    """Count everything now.

    Args:
        pid: The controller's process.
        counts: Where it writes its counts when it is told to.
        owner: The mark of its containers.
        temporary: The folder of its temporary files.
    """
    counts.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    end = time.monotonic() + TELL_S
    while not counts.exists():
        if time.monotonic() > end:
            raise TimeoutError("the controller does not tell its counts")
        time.sleep(0.02)
    told = json.loads(counts.read_text())
    usage = Usage(pid)
    return Census(
        tasks=Counter(told["tasks"]),
        threads=told["threads"],
        descriptors=usage.descriptors(),
        memory_bytes=usage.resident(),
        files=sum(1 for path in temporary.rglob("*") if path.is_file()),
        **_containers(owner),
    )


def _containers(owner: str) -> dict[str, int]:
    """The containers of an owner, and what they have."""
    found = Counter[str]()
    with closing(docker.from_env()) as engine:
        for each in engine.api.containers(all=True, filters={"label": f"{LABEL_OWNER}={owner}"}):
            found["containers"] += 1
            found["volumes"] += sum(mount["Type"] == "volume" for mount in each["Mounts"])
            try:
                known = engine.api.inspect_container(each["Id"])["ExecIDs"] or ()
                found["execs"] += sum(engine.api.exec_inspect(one)["Running"] for one in known)
                found["processes"] += len(engine.api.top(each["Id"])["Processes"])
            except docker.errors.APIError:
                continue  # it has ended meanwhile
    return dict(found)
