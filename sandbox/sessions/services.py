"""What the sessions of one controller share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sandbox.audit import AuditLog
from sandbox.bulkheads.shares import Shares
from sandbox.container.roots import Root
from sandbox.egress.wayout import WayOut
from sandbox.policy import ImagePolicy
from sandbox.runtimes.base import ContainerRuntime
from sandbox.runtimes.known import KnownEngine
from sandbox.secrets import SecretStore
from sandbox.sessions.capacity import Capacity
from sandbox.sessions.journal import Journal
from sandbox.sessions.quotas import Quotas
from sandbox.workspaces.store import WorkspaceStore

OPEN_AT_ONCE = 8
OPEN_AT_ONCE_OF_ONE = 4
"""Of one principal."""
CALLS_AT_ONCE = 12
"""Fewer than the threads of an adapter: the others are for what is nobody's."""
CALLS_OF_ONE = 6


def openings() -> Shares:
    """The sessions that may be made, or taken back, at once."""
    return Shares("openings", OPEN_AT_ONCE, OPEN_AT_ONCE_OF_ONE, OPEN_AT_ONCE)


def engine_calls() -> Shares:
    """The calls of the engine that sessions may have under way.

    A call holds a thread of the engine's adapter until the engine has answered, and removing a
    container can take it seconds. So somebody who opens and closes in a loop waits for its own.
    """
    return Shares("calls of the engine", CALLS_AT_ONCE, CALLS_OF_ONE, CALLS_OF_ONE)


@dataclass(frozen=True, slots=True)
class SessionServices:
    """What all sessions of a controller share.

    Args:
        owner: The mark of the controller's slot, which labels its containers.
        image_for: The engine's reference of an image that a policy names.
        seccomp: The seccomp profile as JSON.
        opening: How many sessions are made, or taken back, at once.
        calls: How many calls of the engine are under way at once.
        keep: Whether sessions outlive this controller.
        capacity: How many sandboxes fit into the host's memory.
        pool: Whether sandboxes are kept ready before they are asked for.
        left_s: How long a default session is kept for the next conversation when its own is over.
        clock: Unix time, seconds.
    """

    owner: str
    runtime: ContainerRuntime
    engine: KnownEngine
    image_for: Callable[[ImagePolicy], str]
    seccomp: str
    roots: tuple[Root, ...]
    journal: Journal
    audit: AuditLog
    opening: Shares
    calls: Shares
    egress: WayOut
    quotas: Quotas
    secrets: SecretStore
    workspaces: WorkspaceStore
    capacity: Capacity
    keep: bool
    pool: bool
    left_s: float
    clock: Callable[[], float]
