"""The memory of all processes that a session has."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence

import psutil

from benchmarks.measures import MEGABYTE
from benchmarks.memory import memory_of


def pss_megabytes(containers: Sequence[str], processes: Sequence[int]) -> float:
    """The proportional set size of containers and processes, with all that they have started.

    Of a container that is the engine's shim and what is below it, and the engine's proxies of its
    published ports.
    """
    found = {
        pid
        for root in [*_engine_processes(containers), *map(psutil.Process, processes)]
        for pid in (root.pid, *(child.pid for child in root.children(recursive=True)))
    }
    return sum(memory_of(pid).proportional for pid in found) / MEGABYTE


def _engine_processes(containers: Sequence[str]) -> list[psutil.Process]:
    """The shims and proxies of containers."""
    if not containers:
        return []
    told = subprocess.run(
        ["docker", "inspect", *containers], capture_output=True, text=True, check=True
    )
    ids: set[str] = set()
    addresses: set[str] = set()
    for container in json.loads(told.stdout):
        ids.add(container["Id"])
        networks = container["NetworkSettings"]["Networks"].values()
        addresses |= {network["IPAddress"] for network in networks} - {""}
    found: list[psutil.Process] = []
    for process in psutil.process_iter(["cmdline"]):
        words: list[str] = process.info["cmdline"] or []
        if not words:
            continue
        is_shim = "containerd-shim" in words[0] and not ids.isdisjoint(words)
        is_proxy = "docker-proxy" in words[0] and not addresses.isdisjoint(words)
        if is_shim or is_proxy:
            found.append(process)
    return found
