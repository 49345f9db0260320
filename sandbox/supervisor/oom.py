"""Whether memory ran out: what a process in the container can see of it."""

from __future__ import annotations

from dataclasses import dataclass

_COUNTERS = (
    ("/sys/fs/cgroup/memory.events", b"oom_kill", True),
    ("/sys/fs/cgroup/memory/memory.oom_control", b"oom_kill", True),
    ("/proc/vmstat", b"oom_kill", False),
)


@dataclass(frozen=True, slots=True)
class OomCount:
    """How often the kernel killed a process for want of memory."""

    source: str
    count: int
    own: bool
    """Whether it counts this container alone; otherwise the whole machine."""


def read() -> OomCount | None:
    """The narrowest counter that can be read; None when none can."""
    for path, key, own in _COUNTERS:
        try:
            with open(path, "rb") as file:
                for line in file:
                    name, _, value = line.partition(b" ")
                    if name == key:
                        return OomCount(path, int(value), own)
        except (OSError, ValueError):
            continue
    return None


def verdict(
    before: OomCount | None, *, signal: int | None, killed: bool, is_told: bool = True
) -> tuple[bool | None, str]:
    """Whether a process that has just ended was killed for want of memory, and what says so.

    Args:
        before: The counter before it was in danger.
        is_told: Whether anybody tells how it ended.

    Returns:
        True or False, or None when nothing tells; and the evidence in a few words.
    """
    if not is_told and not killed:
        return None, "nobody tells here how this process ended"
    if signal != 9 or killed:
        return False, "it was not killed by an unexpected SIGKILL"
    after = read()
    if before is None or after is None or before.source != after.source:
        return None, "no counter of out-of-memory kills can be read here"
    if after.count == before.count:
        return False, f"{after.source}: no out-of-memory kill meanwhile"
    scope = "in this container" if after.own else "on this machine"
    return True, f"{after.source}: {after.count - before.count} out-of-memory kills {scope}"
