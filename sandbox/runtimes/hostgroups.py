"""What the host's kernel holds a container to, read from the control groups of its main process.

Where the engine's word is all there is, as under gVisor, whose inside knows no control group of the
host, this is a second witness; it is there only where the engine runs on this machine and this
process sees its /proc.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

FILES = {
    "memory": ("memory.max", "memory/memory.limit_in_bytes"),
    "pids": ("pids.max", "pids/pids.max"),
}
"""Of each limit the file of version 2 and that of version 1, below its group."""
_UNLIMITED = 2**60
"""Version 1 says a number of this size where there is no limit."""


def held(pid: int, container_id: str, root: Path = Path("/")) -> Mapping[str, int | None] | None:
    """The limits of a container's main process: its group's, or a tighter one above it.

    Returns:
        Bytes of ``memory`` and number of ``pids``, each None where there is no limit; or None where
        they cannot be read, or the process is not known to be that container's.
    """
    process = root / f"proc/{pid}"
    try:
        groups = (process / "cgroup").read_text()
        names = groups.encode() + (process / "cmdline").read_bytes()
        if container_id.encode() not in names:  # a process of this machine, and of another engine
            return None
        paths = {
            controller: PurePosixPath(path)
            for line in groups.splitlines()
            for _number, controllers, path in [line.split(":", 2)]
            for controller in controllers.split(",")
        }
        return {name: _least(root / "sys/fs/cgroup", name, paths) for name in FILES}
    except (OSError, ValueError):
        return None


def _least(mounted: Path, name: str, paths: Mapping[str, PurePosixPath]) -> int | None:
    """The tightest of the limits on the way from a group to the root."""
    second, first = FILES[name]
    if name in paths:
        folder, _, file = first.partition("/")
        found = _limits(mounted / folder, file, paths[name])
    elif "" in paths:
        found = _limits(mounted, second, paths[""])
    else:
        raise ValueError(f"no group of {name}")
    return min(found, default=None)


def _limits(mounted: Path, file: str, path: PurePosixPath) -> Iterator[int]:
    for group in (path, *path.parents):
        where = mounted / group.relative_to("/") / file
        if group == path or where.exists():  # the root's group has none
            word = where.read_text().strip()
            if word != "max" and int(word) < _UNLIMITED:
                yield int(word)
