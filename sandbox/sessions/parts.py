"""What a session does in its sandbox: kernels, commands, terminals, files and its way out."""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import anyio
from anyio.abc import TaskGroup

from sandbox.bulkheads.overruns import Overruns
from sandbox.bulkheads.shares import Owner
from sandbox.commands.commands import Commands
from sandbox.container.sandbox import Sandbox
from sandbox.container.spec import SECRETS
from sandbox.container.variables import CA_FILE
from sandbox.egress.gateway import Gateway
from sandbox.egress.models import Tightening
from sandbox.errors import Conflict, SandboxError
from sandbox.files.files import Files
from sandbox.kernels.kernels import DEFAULT_KERNEL_ID, Kernels
from sandbox.link.link import Link, Stream
from sandbox.secrets import SessionSecrets
from sandbox.sessions.approvals import Approvals
from sandbox.sessions.claims import AUTO, Claim
from sandbox.sessions.livenotebooks import SessionNotebooks
from sandbox.sessions.liveruns import LiveRuns
from sandbox.sessions.services import SessionServices
from sandbox.terminals.terminals import Terminals
from sandbox.workspaces.autosave import Autosave

logger = logging.getLogger(__name__)


class SessionParts:
    """What one session has at its end of the sandbox's link; the sandbox's ``Claimant``."""

    def __init__(
        self,
        claim: Claim,
        sandbox: Sandbox,
        services: SessionServices,
        *,
        secrets: SessionSecrets,
        certificates: bytes,
        tightened: Tightening,
        overruns: Overruns,
        autosave: Autosave | None,
    ) -> None:
        policy, limits, quotas = sandbox.policy, sandbox.policy.limits, services.quotas
        session_id, principal, redactor = claim.session_id, claim.principal, secrets.redactor
        self.approvals = Approvals(session_id, principal, policy, services.audit, redactor)
        way_out = replace(services.egress, secrets=secrets, approver=self.approvals)
        self.network = Gateway(session_id, principal, policy, way_out, tightened, redactor)
        denials = self.network.denials
        self.kernels = Kernels(
            session_id,
            limits,
            services.journal.executions,
            denials=denials,
            admit=lambda: quotas.admit_execution(principal),
            redactor=redactor,
            overruns=overruns,
            oom_probe=sandbox.ran_out_of_memory,
        )
        self.kernels.branches.is_auto = claim.checkpoint == AUTO
        self.commands = Commands(
            session_id,
            limits,
            services.journal.commands,
            denials=denials,
            admit=lambda: quotas.admit_execution(principal),
            redactor=redactor,
            overruns=overruns,
        )
        self.terminals = Terminals(
            limits,
            denials,
            admit=lambda: quotas.admit_work(principal),
            redactor=redactor,
            overruns=overruns,
        )
        self.files = Files(limits, redactor)
        self.notebook_runs = LiveRuns()
        self.notebooks = SessionNotebooks(
            session_id, self.kernels, self.files, services.journal.notebooks, redactor
        )
        self.autosave = autosave
        self._clock = services.clock
        self._calls = services.calls
        self._owner = Owner(principal)
        # An adopted sandbox has been given its files, and what its code made of them is its own.
        self._certificates = b"" if sandbox.is_adopted else certificates
        self._secrets = {} if sandbox.is_adopted else dict(secrets.files)
        self._is_adopted = sandbox.is_adopted
        self._attached = anyio.Event()

    # --- for the sandbox

    def turn(self) -> AbstractAsyncContextManager[None]:
        """A place among those who call the engine."""
        return self._calls.place(self._owner)

    async def attach(self, link: Link) -> None:
        """Use this link from now on."""
        async with anyio.create_task_group() as attaching:
            for part in (self.terminals, self.commands, self.files):
                attaching.start_soon(part.attach, link)
            if self.autosave is not None:
                attaching.start_soon(self.autosave.attach, link)
            attaching.start_soon(self._give_certificates)
            attaching.start_soon(self._give_secrets)
            await self.kernels.attach(link)
            self._attached.set()

    async def serve(self, stream: Stream) -> None:
        """Carry what goes out."""
        await self.network.serve(stream)

    # --- for the session

    def run(self, tasks: TaskGroup) -> None:
        """Let them work, in these tasks, before there is a link."""
        tasks.start_soon(self.kernels.run)
        tasks.start_soon(self.commands.serve)
        tasks.start_soon(self.terminals.run)
        tasks.start_soon(self.notebook_runs.serve)
        tasks.start_soon(self.notebooks.run)
        if self._is_adopted:
            tasks.start_soon(self._resume_notebooks)

    async def start_first_kernel(self) -> None:
        """Start a kernel as soon as there is a link: most callers want one, and want it at once."""
        await self._attached.wait()
        try:
            await self.kernels.start(kernel_id=DEFAULT_KERNEL_ID)
        except Conflict:
            return  # a caller was quicker
        except SandboxError as exc:  # the first execution tries again, and tells its caller
            logger.warning("no first kernel: %s", exc)

    async def save_last(self) -> None:
        """Save what is to be kept, at an orderly end: notebooks into the workspace, and that."""
        await self.notebooks.save_all()
        if self.autosave is not None:
            await self.autosave.save_last()

    def last_activity(self) -> float:
        """Unix time at which something here last did a thing; now, while a cell or command runs."""
        if self.commands.is_busy or any(k.state == "busy" for k in self.kernels.infos):
            return self._clock()
        return self.terminals.last_activity_at

    def facts(self) -> dict[str, Any]:
        """What a ``SessionInfo`` says of them."""
        facts: dict[str, Any] = {"kernels": self.kernels.infos, "network": self.network.info()}
        if self.autosave is not None:
            kept = self.autosave.kept
            facts |= {
                "workspace_name": self.autosave.name,
                "workspace_saved_at": kept.saved_at if kept else None,
                "workspace_bytes": kept.size_bytes if kept else 0,
                "workspace_problem": self.autosave.problem,
            }
        return facts

    # --- inside

    async def _resume_notebooks(self) -> None:
        """Open the notebooks that an earlier controller had open, as soon as there is a link."""
        await self._attached.wait()
        await self.notebooks.resume()

    async def _give_certificates(self) -> None:
        """Put them where the variables of its environment say; once, for they may be changed."""
        if self._certificates:
            await self.files.write(CA_FILE, self._certificates, create_parents=True)
            self._certificates = b""

    async def _give_secrets(self) -> None:
        """Write those that it is given as files; its code has not begun yet."""
        for name, secret in self._secrets.items():
            value = secret.reveal().encode()
            await self.files.write(f"{SECRETS}/{name}", value, mode=0o400, create_parents=False)
        self._secrets = {}
