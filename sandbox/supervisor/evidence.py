"""What can be seen here of why a program failed: filesystems that are full, processes killed."""

from __future__ import annotations

import os
from typing import Any

from sandbox.supervisor import oom

PLACES = {"workspace": "/workspace", "tmp": "/tmp", "shm": "/dev/shm"}
FULL = 1 / 100
"""A filesystem with no more than this part of its bytes free takes nothing of any size."""


def full_filesystems(workspace: str = PLACES["workspace"]) -> dict[str, str]:
    """The filesystems that are full, and of what: ``bytes`` or ``inodes``."""
    found: dict[str, str] = {}
    for name, path in {**PLACES, "workspace": workspace}.items():
        try:
            room = os.statvfs(path)
        except OSError:
            continue
        if room.f_bavail <= room.f_blocks * FULL:
            found[name] = "bytes"
        elif room.f_files and room.f_favail == 0:
            found[name] = "inodes"
    return found


def killed_since(before: oom.OomCount | None) -> dict[str, Any]:
    """How many processes were killed for want of memory since then, and whether the container's
    own are counted or all of the machine's; nothing when nobody counts."""
    after = oom.read()
    if before is None or after is None or before.source != after.source:
        return {}
    return {"oom_kills": max(0, after.count - before.count), "oom_own": after.own}
