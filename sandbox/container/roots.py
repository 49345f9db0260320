"""The operator's roots: the folders of the host below which policies may mount, and no others.

Pure: what is refused here is refused by its name, before anything looks at a file system. What is
really at a path is looked at when a session is opened (``sandbox.container.mounts``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, cast

MAX_ROOTS = 64
MAX_PATH = 1024

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_RESERVED = (
    # The kernel's and the system's own.
    *("/proc", "/sys", "/dev", "/etc", "/run", "/var/run", "/boot", "/root"),
    *("/bin", "/sbin", "/lib", "/lib64", "/usr/bin", "/usr/sbin", "/usr/lib"),
    # The engines'.
    *("/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/kubelet"),
)


@dataclass(frozen=True, slots=True)
class Root:
    """A folder of the engine's host.

    Args:
        path: Absolute, without ``.``, ``..`` or a slash at the end.
    """

    name: str
    path: str
    writable: bool = False

    def __str__(self) -> str:
        return f"{self.name}={self.path}" + (" (writable)" if self.writable else "")


def parse_roots(value: object) -> tuple[Root, ...]:
    """The roots of a setting: a mapping of names, or ``name=path,…`` as in a variable.

    Raises:
        ValueError: One of them cannot be a root, and why.
    """
    pairs = _pairs(value)
    if len(pairs) > MAX_ROOTS:
        raise ValueError(f"there are {len(pairs)} roots, and may be {MAX_ROOTS}")
    roots = tuple(_root(name, given) for name, given in pairs)
    for index, root in enumerate(roots):
        for other in roots[:index]:
            if root.name == other.name:
                raise ValueError(f"{root.name} is given twice")
            if related(root.path, other.path) and (root.writable or other.writable):
                raise ValueError(
                    f"{other.name} and {root.name}: one is within the other, and what sandboxes "
                    "may write to must be apart from what they read"
                )
    return roots


def refuse_near(roots: tuple[Root, ...], path: str, what: str) -> None:
    """Refuse roots that are, hold or are within a path.

    Raises:
        ValueError: One does.
    """
    for root in roots:
        if related(root.path, path):
            raise ValueError(f"{root.name}: {root.path} is, holds or is within {path}, {what}")


def related(one: str, other: str) -> bool:
    """Whether one path is the other, or is above or below it."""
    first, second = PurePosixPath(one), PurePosixPath(other)
    return first == second or first in second.parents or second in first.parents


def _pairs(value: object) -> list[tuple[str, object]]:
    if isinstance(value, str):
        words = [word for part in value.split(",") if (word := part.strip())]
        if any("=" not in word for word in words):
            raise ValueError("write name=path, with commas between several")
        return [(name.strip(), path.strip()) for name, _, path in (w.partition("=") for w in words)]
    if isinstance(value, Mapping):
        return [(str(name), path) for name, path in cast("Mapping[Any, Any]", value).items()]
    if isinstance(value, tuple) and all(isinstance(each, Root) for each in cast("Any", value)):
        roots = cast("tuple[Root, ...]", value)
        return [(root.name, {"path": root.path, "writable": root.writable}) for root in roots]
    raise ValueError("write a mapping of names to folders, such as {datasets: /srv/datasets}")


def _root(name: str, given: object) -> Root:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a root: 1 to 64 of a-z, 0-9, '-', '_', '.'")
    fields = cast("dict[str, object]", given if isinstance(given, dict) else {"path": given})
    if unknown := fields.keys() - {"path", "writable"}:
        raise ValueError(f"{name}: {sorted(unknown)[0]!r} is not known; there are path, writable")
    path, writable = fields.get("path"), fields.get("writable", False)
    if not isinstance(writable, bool):
        raise ValueError(f"{name}: writable is true or false")
    if not isinstance(path, str) or not path.startswith("/") or path.startswith("//"):
        raise ValueError(f"{name}: {path!r} is not an absolute path")
    if len(path) > MAX_PATH or not path.isprintable():
        raise ValueError(f"{name}: its path is too long or not printable")
    if ".." in path.split("/") or "." in path.split("/"):
        raise ValueError(f"{name}: {path} has . or .. in it")
    path = str(PurePosixPath(path))
    if path == "/":
        raise ValueError(f"{name}: / is the whole host")
    root = Root(name, path, writable)
    for reserved in _RESERVED:
        refuse_near((root,), reserved, "which no sandbox may see")
    return root
