"""From settings to a working controller: the one place where the parts are put together."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, aclosing, asynccontextmanager, closing, contextmanager
from dataclasses import replace

from sandbox.audit import AuditLog
from sandbox.cli.engines import container_runtime
from sandbox.cli.folders import live_policies, state_dir
from sandbox.config import Settings
from sandbox.container import images
from sandbox.egress.machine import machine_egress
from sandbox.egress.wayout import WayOut
from sandbox.policy import ImagePolicy, PolicySet, seccomp_profile
from sandbox.runtimes.base import ContainerRuntime
from sandbox.runtimes.known import KnownEngine
from sandbox.secrets import SecretStore
from sandbox.sessions.auditing import GatewayRecord, controller_log, open_log
from sandbox.sessions.capacity import Capacity
from sandbox.sessions.journal import Journal
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.quotas import Quotas
from sandbox.sessions.services import SessionServices, engine_calls, openings
from sandbox.sessions.slots import Slot, SlotKind, attach_slot, take_slot
from sandbox.sessions.usage import Usage
from sandbox.workspaces.store import WorkspaceStore


@contextmanager
def administration(settings: Settings) -> Generator[AuditLog]:
    """The record of a command that changes something without a controller.

    Raises:
        SandboxError: It cannot be written, so nothing may be changed.
    """
    with take_slot(state_dir(settings), "admin") as slot, closing(open_log(slot, settings)) as log:
        log.require()
        yield log


@asynccontextmanager
async def session_manager(
    runtime: ContainerRuntime,
    policies: PolicySet,
    settings: Settings,
    slot: Slot,
    *,
    keep: bool,
    pool: bool = False,
    image_for: Callable[[ImagePolicy], str] = images.reference,
    egress: WayOut | None = None,
    clock: Callable[[], float] = time.time,
) -> AsyncGenerator[SessionManager]:
    """The sessions of a controller, with all that they need.

    Args:
        keep: Whether sessions outlive it, for the next controller of the slot.
        pool: Whether sandboxes are kept ready, as the policies say.
        egress: The way out that policies may open; None for that of this machine.
        clock: Unix time, seconds.

    Raises:
        ConfigError: A file of the slot cannot be used.
    """
    with ExitStack() as undo:
        audit = undo.enter_context(controller_log(slot, settings, policies, clock))
        journal = undo.enter_context(closing(Journal(slot.journal)))
        usage = undo.enter_context(closing(Usage(slot.usage, clock)))
        quotas = Quotas(settings, usage, clock)
        way_out = egress or machine_egress(settings, os.environ)
        services = SessionServices(
            owner=slot.owner,
            runtime=runtime,
            engine=KnownEngine(runtime),
            image_for=image_for,
            seccomp=seccomp_profile(),
            roots=settings.roots,
            journal=journal,
            audit=audit,
            opening=openings(),
            calls=engine_calls(),
            egress=replace(way_out, charge=quotas.charge_egress, record=GatewayRecord(audit)),
            quotas=quotas,
            secrets=SecretStore(settings.secrets_dir),
            workspaces=WorkspaceStore(
                slot.root / "workspaces",
                quota_bytes=settings.workspace_quota_bytes,
                most=settings.max_workspaces,
            ),
            capacity=Capacity(settings.memory_reserve_bytes),
            keep=keep,
            pool=pool,
            left_s=settings.left_session_s,
            clock=clock,
        )
        async with SessionManager(services, policies, settings, slot) as manager:
            yield manager


@asynccontextmanager
async def controller(
    settings: Settings, kind: SlotKind, attach: str = ""
) -> AsyncGenerator[SessionManager]:
    """A controller in a slot of the state folder.

    Args:
        attach: The name of its slot, for one that leaves its sessions to the next, as ``serve``.

    Raises:
        SandboxError: It cannot start.
    """
    policies, keep = live_policies(settings), kind == "serve" or bool(attach)
    async with aclosing(container_runtime(settings)) as runtime:
        images.recipes()  # read now, not while the first caller waits for a session
        root = state_dir(settings)
        with await attach_slot(root, attach) if attach else take_slot(root, kind) as slot:
            pool = settings.pool and kind == "serve"
            async with session_manager(
                runtime, policies, settings, slot, keep=keep, pool=pool
            ) as manager:
                yield manager
