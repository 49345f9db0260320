"""What a container's labels say of the session that it holds, believed only when it all fits."""

from __future__ import annotations

import math

from sandbox.errors import PolicyNotEnforced, SandboxError
from sandbox.mounts import sources
from sandbox.policy import Policy
from sandbox.roots import Root
from sandbox.runtimes.base import ContainerInfo, EngineInfo
from sandbox.spec import (
    LABEL_CREATED_AT,
    LABEL_EXPIRES_AT,
    LABEL_OWNER,
    LABEL_POLICY_DIGEST,
    LABEL_POLICY_JSON,
    LABEL_PRINCIPAL,
    LABEL_SESSION,
    LABEL_UID,
    LABEL_WORKSPACE,
    ContainerSpec,
    SessionIdentity,
    compile_spec,
)


def read_labels(info: ContainerInfo) -> tuple[SessionIdentity, Policy]:
    """The identity and the policy that a container was created with.

    The policy is the one in the labels, so an edited policy file does not touch live sessions.

    Raises:
        PolicyNotEnforced: A label is absent or unreadable, or the policy is not of its digest.
    """
    labels = info.labels
    try:
        identity = SessionIdentity(
            session_id=labels[LABEL_SESSION],
            principal=labels[LABEL_PRINCIPAL],
            owner=labels[LABEL_OWNER],
            uid=int(labels[LABEL_UID]),
            created_at=_time(labels[LABEL_CREATED_AT]),
            expires_at=_time(labels[LABEL_EXPIRES_AT]),
            workspace=labels.get(LABEL_WORKSPACE, ""),
        )
        policy = Policy.from_json(labels[LABEL_POLICY_JSON])
        digest = labels[LABEL_POLICY_DIGEST]
    except (KeyError, ValueError, SandboxError) as exc:
        raise PolicyNotEnforced(
            f"The labels of container {info.id:.12} do not describe a session."
        ) from exc
    if identity.workspace and not policy.workspace.persistent:
        raise PolicyNotEnforced(f"The policy of container {info.id:.12} keeps no workspace.")
    if policy.digest != digest:
        raise PolicyNotEnforced(f"The policy of container {info.id:.12} is not of its digest.")
    if identity.expires_at > identity.created_at + policy.limits.lifetime_s:
        raise PolicyNotEnforced(f"Container {info.id:.12} would outlive its policy's lifetime.")
    return identity, policy


def recompile(
    info: ContainerInfo,
    identity: SessionIdentity,
    policy: Policy,
    engine: EngineInfo,
    seccomp: str,
    roots: tuple[Root, ...],
) -> ContainerSpec:
    """The spec that a container of these labels must match.

    Its image and its runtime are taken from the container: a newer image, or another preference
    since, is no reason to end a live session. What its roots are now counts: a session must not go
    on with a folder that the operator no longer lends.

    Raises:
        SandboxError: The policy does not permit this container.
    """
    facts = info.facts or {}
    spec = compile_spec(
        policy,
        identity,
        image=str(facts.get("image")),
        runtimes=engine.runtimes,
        seccomp=seccomp,
        mounts=sources(policy, roots, engine.data_root),
        runtime_override=str(facts.get("runtime")),
        cpus_available=engine.cpus,
    )
    if not spec.labels.items() <= info.labels.items():
        raise PolicyNotEnforced(f"The labels of container {info.id:.12} do not fit together.")
    return spec


def _time(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
