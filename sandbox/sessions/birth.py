"""What a session is born with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import anyio

from sandbox.audit import AuditLog
from sandbox.egress import Egress, Tightening
from sandbox.policy import Policy
from sandbox.roots import Root
from sandbox.runtimes.base import ContainerRuntime
from sandbox.secretstore import SecretStore, SessionSecrets
from sandbox.sessions.engine import KnownEngine
from sandbox.sessions.journal import Journal
from sandbox.sessions.models import SessionProof
from sandbox.sessions.quotas import Quotas
from sandbox.spec import ContainerSpec, SessionIdentity
from sandbox.workspaces import Held, WorkspaceStore


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all sessions of a controller share.

    Args:
        runtime: Where the containers are.
        engine: What is known of the engine.
        journal: Where executions and ends are noted.
        audit: Where openings and ends are on record.
        opening: How many containers are made at once.
        connecting: How many links are made at once.
        egress: The way out that policies may open.
        quotas: What each principal may use.
        secrets: What policies may give, or add to requests.
        clock: Unix time, seconds.
        workspaces: Where named workspaces are kept.
        roots: The folders of the host that policies may mount.
    """

    runtime: ContainerRuntime
    engine: KnownEngine
    journal: Journal
    audit: AuditLog
    opening: anyio.CapacityLimiter
    connecting: anyio.CapacityLimiter
    egress: Egress
    quotas: Quotas
    secrets: SecretStore
    clock: Callable[[], float]
    workspaces: WorkspaceStore
    roots: tuple[Root, ...] = ()


@dataclass(frozen=True, slots=True)
class Birth:
    """What a session is born with.

    Args:
        identity: Whose it is, and since and until when.
        policy: What it may.
        spec: What its container must be.
        name: As its opener named it; empty for none.
        opener_key: The default key of the caller that opened it.
        default_key: The key of the caller whose default it is; None for nobody's.
        last_activity: Unix time, seconds.
        container_id: Of the container it is adopted from; None when one is to be made.
        certificates: What it is given to trust, in PEM; empty for what its image does.
        secrets: What its policy gives it, or adds to its requests.
        tightened: What was taken from its network since it was opened.
        workspace: The named workspace that was taken for it; None for none.
        is_proved: Whether an earlier controller proved that its policy is enforced.
        proof: That proof, if it is known.
    """

    identity: SessionIdentity
    policy: Policy
    spec: ContainerSpec
    name: str
    opener_key: str
    default_key: str | None
    last_activity: float
    container_id: str | None = None
    certificates: bytes = b""
    secrets: SessionSecrets = field(default_factory=SessionSecrets)
    tightened: Tightening = field(default_factory=Tightening)
    workspace: Held | None = None
    is_proved: bool = False
    proof: SessionProof | None = None
