"""Sandboxes that nobody has yet: what they are to be, and whether one is still what it would be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sandbox.config import Settings
from sandbox.container.checks import NotProved
from sandbox.container.compiler import compile_spec
from sandbox.container.identity import SandboxIdentity, new_sandbox_id, new_uid
from sandbox.container.mounts import sources
from sandbox.container.sandbox import Sandbox
from sandbox.container.spec import ContainerSpec
from sandbox.egress.machine import Outfit, outfit
from sandbox.policy import Policy
from sandbox.runtimes.base import EngineInfo
from sandbox.sessions.refusals import Refusals
from sandbox.sessions.services import SessionServices


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a sandbox is made in: the engine as it is, and what its way out gives it."""

    engine: EngineInfo
    given: Outfit


class Maker:
    """Makes sandboxes that are still to be opened.

    Args:
        is_taken: Whether a sandbox that there is has that uid.
    """

    def __init__(
        self, services: SessionServices, settings: Settings, is_taken: Callable[[int], bool]
    ) -> None:
        self._services = services
        self._settings = settings
        self._is_taken = is_taken
        self._refusals = Refusals()

    async def surroundings(self, policy: Policy) -> Surroundings:
        """What a sandbox of a policy would be made in now.

        Raises:
            EngineUnavailable: The engine was never asked, and does not answer now.
        """
        services = self._services
        return Surroundings(await services.engine.get(), await outfit(services.egress, policy))

    def sandbox(self, policy: Policy, around: Surroundings) -> Sandbox:
        """A new one.

        Raises:
            NotPermitted: The policy does not permit the runtime that the settings force, or it
                mounts what may not be mounted so.
            ConfigError: The policy mounts a root that the operator does not have.
            PolicyNotEnforced: The engine has no runtime that the policy permits, or cannot enforce
                what a sandbox must have.
        """
        services = self._services
        identity = SandboxIdentity(
            sandbox_id=new_sandbox_id(),
            owner=services.owner,
            uid=self._unused_uid(),
            created_at=services.clock(),
        )
        return Sandbox(
            identity,
            policy,
            self._spec(policy, identity, around),
            services.runtime,
            reports=around.engine.reports,
            roots=services.roots,
            clock=services.clock,
        )

    async def refused(self, sandbox: Sandbox, error: NotProved) -> bool:
        """Pass over the runtime of a new sandbox that was less than its policy says, if the policy
        permits another one that the engine has; whether that is so.

        What the folders of the host are is no fault of a runtime, and in other hands.

        Raises:
            EngineUnavailable: The engine was never asked, and does not answer now.
        """
        folders = tuple(f"mounts.{mount.target}" for mount in sandbox.spec.mounts)
        failed = [check.name for check in error.checks if not check.ok]
        if self._settings.runtime or any(name.startswith(folders) for name in failed):
            return False
        self._refusals.note(sandbox.policy, sandbox.spec.runtime, error.message)
        rest = self._refusals.rest(sandbox.policy, await self._services.engine.get())
        return sandbox.spec.runtime not in rest.runtimes

    def passed_over(self, sandbox: Sandbox) -> str:
        """Which runtime its policy prefers to its own, and why it has not got that; or empty."""
        return self._refusals.told(sandbox.policy, sandbox.spec.runtime)

    def is_current(self, sandbox: Sandbox, policy: Policy, around: Surroundings) -> bool:
        """Whether one that was made earlier is what it would be if it were made now.

        Raises:
            SandboxError: None would be made now: see :meth:`sandbox`.
        """
        return sandbox.spec == self._spec(policy, sandbox.identity, around)

    def _spec(
        self, policy: Policy, identity: SandboxIdentity, around: Surroundings
    ) -> ContainerSpec:
        services, forced = self._services, self._settings.runtime
        return compile_spec(
            policy,
            identity,
            image=services.image_for(policy.image),
            engine=around.engine if forced else self._refusals.rest(policy, around.engine),
            seccomp=services.seccomp,
            mounts=sources(policy, services.roots, around.engine.data_root),
            runtime_override=forced or None,
            variables=around.given.variables,
        )

    def _unused_uid(self) -> int:
        while self._is_taken(uid := new_uid()):
            pass
        return uid
