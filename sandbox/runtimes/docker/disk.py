"""Which disk an engine's containers read their images from, found on the engine's own host."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable
from pathlib import Path

_BLOCK_DEVICES = Path("/sys/dev/block")
# What an engine warns of when its kernel has no rates, under control groups of version 1 and 2.
_NO_RATES = ("read_bps_device", "write_bps_device", "(rbps)", "(wbps)")


def has_rates(warnings: Iterable[str]) -> bool:
    """Whether an engine that warns of this can bound the rates of a disk."""
    return not any(word in warning for warning in warnings for word in _NO_RATES)


def disk_below(folder: str, host: str) -> str:
    """The whole disk that a folder of an engine is on, if that engine's host is this machine.

    Returns:
        The path of its device; empty when this is not that host, or the folder is on no single
        disk, as with a network filesystem.
    """
    if host != socket.gethostname():
        return ""
    try:
        number = os.stat(folder).st_dev
        entry = (_BLOCK_DEVICES / f"{os.major(number)}:{os.minor(number)}").resolve(strict=True)
        # Rates are those of whole disks.
        disk = entry.parent if (entry / "partition").exists() else entry
        device = f"/dev/{disk.name.replace('!', '/')}"
        return device if stat.S_ISBLK(os.stat(device).st_mode) else ""
    except OSError:
        return ""
