"""What of the life of a controller and of its sessions is on record."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from sandbox import __version__
from sandbox.audit import (
    AuditLog,
    ControllerEntry,
    EgressEntry,
    PolicyEntry,
    SessionEntry,
    digest_of,
)
from sandbox.config import Settings
from sandbox.container.sandbox import Sandbox
from sandbox.egress.wayout import Seen
from sandbox.errors import SandboxError
from sandbox.policy import LivePolicies, PolicySet
from sandbox.sessions.claims import Claim
from sandbox.sessions.slots import Slot


def open_log(slot: Slot, settings: Settings, clock: Callable[[], float] = time.time) -> AuditLog:
    """The audit log of a slot.

    Raises:
        ConfigError: The log cannot be used.
    """
    return AuditLog(
        slot.audit,
        slot.name,
        max_bytes=settings.audit_max_bytes,
        max_age_s=settings.audit_max_age_s,
        clock=clock,
    )


@contextmanager
def controller_log(
    slot: Slot, settings: Settings, policies: PolicySet, clock: Callable[[], float]
) -> Generator[AuditLog]:
    """The audit log of a controller, with its beginning and its end.

    Raises:
        ConfigError: The log cannot be used.
    """
    log = open_log(slot, settings, clock)
    pid = os.getpid()
    log.record(ControllerEntry(event="started", version=__version__, pid=pid))
    count = len(policies.names())
    log.record(PolicyEntry(event="loaded", policies=count, digest=policies.digest))

    def read_again(problem: SandboxError | None) -> None:
        if problem is not None:
            log.record(PolicyEntry(event="refused", reason=problem.message))
            return
        count = len(policies.names())
        log.record(PolicyEntry(event="reloaded", policies=count, digest=policies.digest))

    if isinstance(policies, LivePolicies):
        policies.changed = read_again
    try:
        yield log
    finally:
        log.record(ControllerEntry(event="stopped", pid=pid))
        log.close()


class SessionRecord:
    """Puts the life of one session on record."""

    def __init__(self, log: AuditLog, claim: Claim, sandbox: Sandbox) -> None:
        self._log = log
        self._sandbox = sandbox
        self._facts: dict[str, Any] = {
            "session_id": claim.session_id,
            "principal": claim.principal,
            "name": claim.name,
            "policy": sandbox.policy.name,
            "policy_digest": sandbox.policy.digest,
            "runtime": sandbox.spec.runtime,
            "image": sandbox.spec.image,
            "forked_from": claim.forked_from,
        }

    def opened(self) -> None:
        """Its caller may use it, or use it again after a restart of the controller."""
        proof = self._sandbox.proof
        checks = [check.model_dump(mode="json") for check in proof.checks] if proof else []
        self._write(
            event="adopted" if self._sandbox.is_adopted else "opened",
            checks=len(checks) if checks else None,
            proof=digest_of(checks) if checks else "",
        )

    def passed_on(self) -> None:
        """Another conversation of the same token took it over."""
        self._write(event="passed_on")

    def tightened(self, what: str) -> None:
        """Something was taken from its network."""
        self._write(event="tightened", reason=what)

    def ended(self, state: str, reason: str, *, was_opened: bool) -> None:
        """It is over, or never came to be used."""
        self._write(
            event="ended" if was_opened else "not_opened",
            state=state if was_opened else "",
            reason=reason,
        )

    def _write(self, **facts: Any) -> None:
        container_id = self._sandbox.container_id or ""
        self._log.record(SessionEntry(container_id=container_id, **facts, **self._facts))


class GatewayRecord:
    """Puts what gateways decide on record; ``Record`` of ``sandbox.egress``."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    def require(self) -> None:
        """Make sure that a connection can be put on record.

        Raises:
            InfrastructureError: It cannot, so it must not be made.
        """
        self._log.require()

    def saw(self, seen: Seen) -> None:
        """Put a verdict on record."""
        self._log.record(
            EgressEntry(
                verdict="allow" if seen.allowed else "deny",
                principal=seen.principal,
                session_id=seen.session_id,
                host=seen.host,
                port=seen.port,
                rule=seen.rule,
                reason=seen.reason,
                policy=seen.policy,
                policy_digest=seen.policy_digest,
            )
        )
