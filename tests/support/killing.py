"""What is done to a session's container from outside: by the engine, or to its processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import docker

PAUSE_S = 1.0


def processes_of(engine: docker.DockerClient, container_id: str, word: str) -> list[int]:
    """The processes of a container whose command line has a word, by this machine's numbers."""
    told = engine.api.top(container_id, "-eo pid,args")["Processes"]
    return [int(pid) for pid, words in told if word in words]


def end(pids: list[int], number: signal.Signals = signal.SIGKILL) -> None:
    """Send processes a signal; those that have ended meanwhile need none."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def kill(engine: docker.DockerClient, container_id: str) -> None:
    engine.api.kill(container_id)


def remove(engine: docker.DockerClient, container_id: str) -> None:
    engine.api.remove_container(container_id, force=True)


def stop(engine: docker.DockerClient, container_id: str) -> None:
    engine.api.stop(container_id, timeout=0)


def kill_supervisor(engine: docker.DockerClient, container_id: str) -> None:
    """Its init, whose first child is the supervisor, sees that end."""
    init = engine.api.inspect_container(container_id)["State"]["Pid"]
    children = Path(f"/proc/{init}/task/{init}/children").read_text().split()
    end([int(children[0])])


def kill_bridge(engine: docker.DockerClient, container_id: str) -> None:
    end(processes_of(engine, container_id, "bridge"))


def kill_shim(engine: docker.DockerClient, container_id: str) -> None:
    """The process of containerd that holds a container."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"shim" in words[0] and container_id.encode() in words:
            end([int(process.name)])


def pause(engine: docker.DockerClient, container_id: str) -> None:
    """For a while."""
    engine.api.pause(container_id)
    time.sleep(PAUSE_S)
    engine.api.unpause(container_id)


def leave_alone(engine: docker.DockerClient, container_id: str) -> None:
    """Nothing: what a test tells of the others must not be so of this one."""


Fault = Callable[[docker.DockerClient, str], None]
COSTS_THE_SESSION: dict[Fault, tuple[str, ...]] = {
    kill: ("exit code 137",),
    stop: ("exit code",),
    remove: ("removed from outside",),
    kill_supervisor: ("exit code", "supervisor"),
}
"""What ends a session, and a word that its caller is told of it."""
COSTS_NOTHING: tuple[Fault, ...] = (kill_bridge, pause, leave_alone)
