"""Ends what uses most when memory runs out, where the kernel does not: gVisor ends as a whole.

Linux ends a process of the container at its limit and counts that, which :mod:`.oom` reads. To the
machine a gVisor sandbox is one process, with which the session would go.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections import defaultdict
from contextlib import suppress

from sandbox.supervisor import headroom
from sandbox.supervisor.children import Children
from sandbox.supervisor.restraint import every_descriptor, mark_of

FASTEST_BYTES_PER_S = 4 * 1024**3
"""Memory is used up no faster, so that it need not be looked at sooner."""
SHORTEST_S, LONGEST_S = 0.01, 1.0
RELEASE_S = 0.25
"""After an end it takes a moment until memory is free again."""
LARGE = 1 / 16
"""Only who uses this part of all memory is ended, until hardly any is left."""
ADVANCE = 1 / 4
"""A checkpoint goes before what uses up to this part of all memory more, as by Linux's scores."""

logger = logging.getLogger(__name__)


class MemoryGuard:
    """Watches the memory of a sandbox for as long as :meth:`run` runs."""

    def __init__(self, children: Children) -> None:
        self._children = children

    async def run(self) -> None:
        """Keep some memory free; returns at once where the kernel sees to that."""
        kept = headroom.kept_bytes()
        if not kept:
            return
        with suppress(OSError, ValueError, KeyError):  # then nothing can be known of it
            while True:
                total, free = headroom.meminfo()
                if free < kept:
                    is_urgent = free < kept / 4
                    self._end_one(total * LARGE, total * ADVANCE, is_urgent=is_urgent)
                    await asyncio.sleep(RELEASE_S)
                left_s = (free - kept) / FASTEST_BYTES_PER_S
                await asyncio.sleep(min(max(left_s, SHORTEST_S), LONGEST_S))

    def _end_one(self, large_bytes: float, advance_bytes: float, *, is_urgent: bool) -> None:
        """End who uses most, alone if it is one process, else with all that it belongs to.

        Args:
            large_bytes: Who uses less is spared.
            advance_bytes: What is frozen goes before who uses less than this beyond it: the oldest,
                or where it is urgent all of it.
            is_urgent: Whether to end the last that was started where nobody is large: whose the
                memory is that is in no process, as of files and shared pieces, nobody knows.
        """
        sizes: dict[int, dict[int, int]] = defaultdict(dict)
        with every_descriptor():
            for name in os.listdir("/proc"):
                if name.isdigit():
                    with suppress(OSError, ValueError, IndexError):
                        sizes[mark_of(int(name))][int(name)] = headroom.resident_bytes(int(name))
        used = {child.pid: sum(sizes[child.mark].values()) for child in self._children}
        frozen = [child for child in self._children if child.is_frozen and child.alive]
        running = [child for child in self._children if not child.is_frozen]
        child = max(running, key=lambda child: used[child.pid], default=None)
        most = used[child.pid] if child else 0
        if frozen and most < max(used[each.pid] for each in frozen) + advance_bytes:
            logger.warning("memory runs out: a checkpoint is ended")
            for each in frozen if is_urgent else frozen[:1]:
                each.is_out_of_memory = True
                each.kill_tree()
            return
        if child is not None and most < large_bytes:
            child = running[-1] if is_urgent else None
        if child is None:
            return
        logger.warning("memory runs out: what uses %d MiB is ended", used[child.pid] >> 20)
        largest, size = max(sizes[child.mark].items(), key=lambda item: item[1], default=(0, 0))
        if largest != child.pid and size > used[child.pid] // 2:
            with suppress(OSError):
                os.kill(largest, signal.SIGKILL)
        else:
            child.is_out_of_memory = True
            child.kill_tree()
