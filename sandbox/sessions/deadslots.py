"""Sessions of controllers that died and whose slots nobody has taken since.

A desktop controller that was killed leaves its containers to the next one that takes its slot. If
none comes, whoever runs removes them when their time is over. The served slot is left alone: its
controller is coming back, and must find its slot free when it does.
"""

from __future__ import annotations

import logging

from sandbox.audit import AuditLog, SessionEntry
from sandbox.container.labels import LABEL_OWNER, LABEL_SANDBOX, read_labels
from sandbox.errors import SandboxError
from sandbox.runtimes.base import ContainerInfo, ContainerRuntime
from sandbox.sessions.journal import Journal
from sandbox.sessions.slots import LASTING, Slot, slot_names, try_slot

EXPIRED = "its time was over while no controller had it"

logger = logging.getLogger(__name__)


async def tidy_neighbours(
    runtime: ContainerRuntime, own: Slot, audit: AuditLog, now: float
) -> None:
    """Remove the containers of dead controllers whose time is over, or which are nobody's."""
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
            if why := _why_not(container, journal, now):
                logger.info("container %.12s of slot %s: %s", container.id, slot.name, why)
                await runtime.remove(container.id)
                if why == EXPIRED:
                    _note_expired(container, journal, now)
                reason = f"{why}; its controller of slot {slot.name} is dead"
                audit.record(
                    SessionEntry(event="removed", container_id=container.id, reason=reason)
                )
    finally:
        journal.close()


def _note_expired(container: ContainerInfo, journal: Journal, now: float) -> None:
    """Note how a session ended, for whoever takes the slot next and is asked for it."""
    row = journal.of_sandbox(container.labels.get(LABEL_SANDBOX, ""))
    if row is not None:
        journal.executions.lose(row.session_id, EXPIRED)
        journal.commands.lose(row.session_id, EXPIRED)
        journal.ended(row.session_id, "expired", EXPIRED, None, now)


def _why_not(container: ContainerInfo, journal: Journal, now: float) -> str:
    """Why the next controller of the slot would not take a container back; empty when it would."""
    try:
        identity, policy = read_labels(container)
    except SandboxError as exc:
        return exc.message
    row = journal.of_sandbox(identity.sandbox_id)
    if row is None or row.ended_at is not None or not row.fits(identity, policy):
        return "it is no session's"
    if now >= min(row.expires_at, row.last_activity + policy.limits.idle_s):
        return EXPIRED
    return ""
