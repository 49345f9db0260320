"""Which containers may be created: those that the broker's own policies compile to."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace

from sandbox.container.compiler import recompile
from sandbox.container.features import ALL, values_of
from sandbox.container.identity import MAX_UID, MIN_UID, SandboxIdentity
from sandbox.container.inspection import mismatches
from sandbox.container.labels import read_labels
from sandbox.container.roots import Root
from sandbox.container.spec import ContainerSpec
from sandbox.container.variables import CA_FILE, CA_VARIABLES, NETWORK_VARIABLES, PROXY_VARIABLES
from sandbox.errors import ConfigError, NotFound, NotPermitted, PolicyError, PolicyNotEnforced
from sandbox.policy import ImagePolicy, Policy, PolicySet
from sandbox.runtimes.base import ContainerInfo, EngineInfo

MAX_AGE_S = 120.0
"""How old the identity of a sandbox may be when its container is made: openings wait their turn. A
session may claim the sandbox as late as it likes, for that is no affair of the broker's."""
MAX_AHEAD_S = 5.0
MAX_VARIABLE = 4096
INDEX_VARIABLES = NETWORK_VARIABLES - {*CA_VARIABLES, *PROXY_VARIABLES}
SAME_POLICIES = (
    "Give the broker the same version, policy files and runtime setting as the controller."
)

_SANDBOX = re.compile(r"sb-[0-9a-f]{32}")
_OWNER = re.compile(r"[0-9a-f]{32}")


class AdmissionRules:
    """What a broker permits. Pure but for the clock.

    Args:
        runtime: The runtime to force on every container; empty for the one that its policy prefers.
    """

    def __init__(
        self,
        policies: PolicySet,
        seccomp: str,
        image_for: Callable[[ImagePolicy], str],
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
        """The container of a sandbox, compiled here; what is asked for is only compared with it.

        Raises:
            NotPermitted: It is not what the broker's policies make of its labels.
        """
        info = ContainerInfo(
            id="",
            name=asked.name,
            state="missing",
            labels=asked.labels,
            annotations=asked.annotations,
        )
        try:
            identity, told = read_labels(info)
        except PolicyNotEnforced as exc:
            raise NotPermitted("The labels of the container describe no sandbox.") from exc
        self._check_identity(identity)
        policy = self._known(told)
        # Without one that is forced, the runtime is the first of the policy's that the engine has.
        facts = {"image": self._image_for(policy.image), "runtime": self._runtime}
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

    def _check_identity(self, identity: SandboxIdentity) -> None:
        age_s = self._clock() - identity.created_at
        wrong = {
            "sandbox id": _SANDBOX.fullmatch(identity.sandbox_id) is None,
            "owner": _OWNER.fullmatch(identity.owner) is None,
            "uid": not MIN_UID <= identity.uid < MAX_UID,
            "time": not -MAX_AHEAD_S <= age_s <= MAX_AGE_S,
        }
        for what, is_wrong in wrong.items():
            if is_wrong:
                raise NotPermitted(f"The container's labels hold no {what} of a new sandbox.")


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
    told = mismatches(spec, {**values_of(asked)}, ALL)
    beside = ("name", "environment", "labels", "annotations")
    return told + [each for each in beside if getattr(spec, each) != getattr(asked, each)]
