"""Which containers may be created: those that the broker's own policies compile to."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace

from sandbox.errors import ConfigError, NotFound, NotPermitted, PolicyError, PolicyNotEnforced
from sandbox.policy import Policy, PolicySet
from sandbox.roots import Root
from sandbox.runtimes.base import ContainerInfo, EngineInfo
from sandbox.sessions.labels import read_labels, recompile
from sandbox.spec import (
    CA_FILE,
    CA_VARIABLES,
    MAX_UID,
    MIN_UID,
    NETWORK_VARIABLES,
    PROXY_VARIABLES,
    ContainerSpec,
    SessionIdentity,
    mismatches,
)

MAX_AGE_S = 120.0
"""How long ago a session may have begun when its container is made: openings wait their turn."""
MAX_AHEAD_S = 5.0
MAX_PRINCIPAL = 256
MAX_WORKSPACE = 64
MAX_VARIABLE = 4096
INDEX_VARIABLES = NETWORK_VARIABLES - {*CA_VARIABLES, *PROXY_VARIABLES}
SAME_POLICIES = "Give the broker the same version and policy files as the controller."

_SESSION = re.compile(r"s-[a-z2-7]{26}")
_OWNER = re.compile(r"[0-9a-f]{32}")


class Rules:
    """What a broker permits. Pure but for the clock.

    Args:
        policies: The broker's own.
        seccomp: The seccomp profile as JSON.
        image_for: The engine's reference of an image that a policy names.
        runtime: The runtime to force on every container; empty for any that its policy permits.
        roots: The folders of the host that policies may mount, as the broker's operator names them.
        clock: Unix time, seconds.
    """

    def __init__(
        self,
        policies: PolicySet,
        seccomp: str,
        image_for: Callable[[str], str],
        *,
        runtime: str = "",
        roots: tuple[Root, ...] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._policies = policies
        self._seccomp = seccomp
        self._image_for = image_for
        self._runtime = runtime
        self._roots = roots
        self._clock = clock

    @property
    def images(self) -> frozenset[str]:
        """The references of the images that the policies name."""
        policies = (self._policies.get(name) for name in self._policies.names())
        return frozenset(self._image_for(policy.image) for policy in policies)

    def compiled(self, asked: ContainerSpec, engine: EngineInfo) -> ContainerSpec:
        """The container of a session, compiled here; what is asked for is only compared with it.

        Args:
            asked: What the controller wants.
            engine: Where it is to be.

        Raises:
            NotPermitted: It is not what the broker's policies make of its labels.
        """
        info = ContainerInfo(id="", name=asked.name, state="missing", labels=asked.labels)
        try:
            identity, told = read_labels(info)
        except PolicyNotEnforced as exc:
            raise NotPermitted("The labels of the container describe no session.") from exc
        self._check_identity(identity)
        policy = self._known(told)
        facts = {"image": self._image_for(policy.image), "runtime": self._runtime or asked.runtime}
        try:
            spec = recompile(
                replace(info, facts=facts), identity, policy, engine, self._seccomp, self._roots
            )
        except (PolicyNotEnforced, ConfigError) as exc:
            raise NotPermitted(exc.message, remedy=exc.remedy) from exc
        spec = spec.model_copy(update={"environment": spec.environment | _way_out(policy, asked)})
        if asked != spec:
            raise NotPermitted(
                "The container is not what its policy says: "
                + "; ".join(_differences(spec, asked)),
                remedy=SAME_POLICIES,
            )
        return spec

    def _known(self, told: Policy) -> Policy:
        try:
            policy = self._policies.get(told.name)
        except (NotFound, PolicyError) as exc:
            raise NotPermitted(
                f"The broker does not know the policy {told.name!r}.", remedy=SAME_POLICIES
            ) from exc
        if policy.digest != told.digest:
            raise NotPermitted(
                f"The broker knows another policy by the name {told.name!r}.", remedy=SAME_POLICIES
            )
        return policy

    def _check_identity(self, identity: SessionIdentity) -> None:
        age_s = self._clock() - identity.created_at
        wrong = {
            "session id": _SESSION.fullmatch(identity.session_id) is None,
            "owner": _OWNER.fullmatch(identity.owner) is None,
            "principal": not 0 < len(identity.principal) <= MAX_PRINCIPAL,
            "uid": not MIN_UID <= identity.uid < MAX_UID,
            "workspace": len(identity.workspace) > MAX_WORKSPACE,
            "time": not -MAX_AHEAD_S <= age_s <= MAX_AGE_S,
        }
        for what, is_wrong in wrong.items():
            if is_wrong:
                raise NotPermitted(f"The container's labels hold no {what} of a new session.")


def _way_out(policy: Policy, asked: ContainerSpec) -> dict[str, str]:
    """The variables by which programs inside find what a policy opens, as the controller knows it.

    They are the controller's to say, for it is the way out. They act inside alone, where it may run
    whatever it likes; so only what they are is looked at.
    """
    if policy.network.is_none:
        return {}
    return {
        name: value
        for name, value in asked.environment.items()
        if (name in CA_VARIABLES and value == CA_FILE)
        or (name in INDEX_VARIABLES and len(value) <= MAX_VARIABLE and value.isprintable())
    }


def _differences(spec: ContainerSpec, asked: ContainerSpec) -> list[str]:
    told = mismatches(spec, asked.facts())
    beside = ("name", "environment", "labels")
    return told + [each for each in beside if getattr(spec, each) != getattr(asked, each)]
