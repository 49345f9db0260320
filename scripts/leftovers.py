"""Print what this project has on the engine and in the process table now, a line each, sorted.

``scripts/test`` compares what it prints before and after the tests: nothing may be left of them.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import docker


def on_the_engine() -> list[str]:
    """Containers of our images, volumes and networks."""
    with closing(docker.from_env()) as client:
        containers = [
            f"container {found['Names'][0]} of {found['Image']}"
            for found in client.api.containers(all=True)
            if found["Image"].startswith("sandbox/")
            or any(label.startswith("io.sandbox.") for label in found["Labels"] or ())
        ]
        volumes = [f"volume {found['Name']}" for found in client.api.volumes()["Volumes"] or ()]
        networks = [f"network {found['Name']}" for found in client.api.networks()]
    return [*containers, *volumes, *networks]


def processes() -> list[str]:
    """Processes of the command line of this checkout."""
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            folder = (entry / "cwd").readlink()
        except OSError:
            continue  # it has ended meanwhile
        if words[1:3] == ["-m", "sandbox"] and folder == Path.cwd():
            found.append(f"process {entry.name}: {' '.join(words).strip()}")
    return found


if __name__ == "__main__":
    print("\n".join(sorted([*on_the_engine(), *processes()])))
