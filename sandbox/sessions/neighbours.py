"""Sessions of controllers that died and whose slots nobody has taken since.

A desktop controller that was killed leaves its containers to the next one that takes its slot. If
none comes, whoever runs removes them when their time is over. The served slot is left alone: its
controller is coming back, and must find its slot free when it does.
"""

from __future__ import annotations

import logging

from sandbox.audit import AuditLog, SessionEntry
from sandbox.errors import SandboxError
from sandbox.runtimes.base import ContainerInfo, ContainerRuntime
from sandbox.sessions.journal import Journal
from sandbox.sessions.labels import read_labels
from sandbox.sessions.state import LASTING, Slot, slot_names, try_slot
from sandbox.spec import LABEL_OWNER, LABEL_SESSION

logger = logging.getLogger(__name__)


async def tidy_neighbours(
    runtime: ContainerRuntime, own: Slot, audit: AuditLog, now: float
) -> None:
    """Remove the containers of dead controllers whose lifetime or idle time is over.

    Args:
        runtime: Where the containers are.
        own: The slot of this controller.
        audit: Its log: what it removes is on record there.
        now: Unix time, seconds.
    """
    for name in slot_names(own.root):
        if name in (own.name, *LASTING):
            continue
        try:
            slot = try_slot(own.root, name)
            if slot is not None:
                with slot:
                    await _tidy(runtime, slot, audit, now)
        except SandboxError as exc:
            logger.warning("slot %s: %s", name, exc)


async def _tidy(runtime: ContainerRuntime, slot: Slot, audit: AuditLog, now: float) -> None:
    containers = await runtime.list({LABEL_OWNER: slot.owner})
    if not containers:
        return
    journal = Journal(slot.journal)
    try:
        for container in containers:
            if _is_over(container, journal, now):
                logger.info("container %.12s of slot %s has expired", container.id, slot.name)
                await runtime.remove(container.id)
                reason = f"it has expired; its controller of slot {slot.name} is dead"
                audit.record(
                    SessionEntry(
                        event="removed",
                        session_id=container.labels.get(LABEL_SESSION, ""),
                        container_id=container.id,
                        reason=reason,
                    )
                )
    finally:
        journal.close()


def _is_over(container: ContainerInfo, journal: Journal, now: float) -> bool:
    try:
        identity, policy = read_labels(container)
    except SandboxError:
        return True
    row = journal.session(identity.principal, identity.session_id)
    used_at = row.last_activity if row else identity.created_at
    return now >= min(identity.expires_at, used_at + policy.limits.idle_s)
