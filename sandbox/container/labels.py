"""What a container says on the engine of the sandbox that it is, believed only when it all fits.

A label is short and of a form that every engine takes, and is what containers are found by. What is
longer or free text is an annotation.
"""

from __future__ import annotations

import math

from sandbox.container.engine import ContainerInfo
from sandbox.container.identity import SandboxIdentity
from sandbox.errors import PolicyNotEnforced, SandboxError
from sandbox.policy import Policy

LABEL_PREFIX = "io.sandbox."
LABEL_MANAGED = LABEL_PREFIX + "managed"
LABEL_OWNER = LABEL_PREFIX + "owner"
LABEL_SANDBOX = LABEL_PREFIX + "sandbox"
LABEL_CREATED_AT = LABEL_PREFIX + "created-at"
LABEL_UID = LABEL_PREFIX + "uid"
LABEL_BROKER = LABEL_PREFIX + "broker"
"""Which broker made the container; given by it alone, never part of a spec."""

ANNOTATION_POLICY = LABEL_PREFIX + "policy"
ANNOTATION_POLICY_DIGEST = LABEL_PREFIX + "policy-digest"
ANNOTATION_POLICY_JSON = LABEL_PREFIX + "policy-json"


def labels_of(identity: SandboxIdentity) -> dict[str, str]:
    """The labels of a sandbox: which it is, and nothing of whose."""
    return {
        LABEL_MANAGED: "1",
        LABEL_OWNER: identity.owner,
        LABEL_SANDBOX: identity.sandbox_id,
        LABEL_CREATED_AT: repr(identity.created_at),
        LABEL_UID: str(identity.uid),
    }


def annotations_of(policy: Policy) -> dict[str, str]:
    """The annotations of a sandbox: no digest or name of a policy is surely a label."""
    return {
        ANNOTATION_POLICY: policy.name,
        ANNOTATION_POLICY_DIGEST: policy.digest,
        ANNOTATION_POLICY_JSON: policy.to_json(),
    }


def read_labels(info: ContainerInfo) -> tuple[SandboxIdentity, Policy]:
    """The identity and the policy that a container was created with.

    The policy is the one in the annotations, so an edited policy file does not touch live sessions.

    Raises:
        PolicyNotEnforced: A label or an annotation is absent or unreadable, or the policy is not of
            its digest.
    """
    labels, annotations = info.labels, info.annotations
    try:
        identity = SandboxIdentity(
            sandbox_id=labels[LABEL_SANDBOX],
            owner=labels[LABEL_OWNER],
            uid=int(labels[LABEL_UID]),
            created_at=_time(labels[LABEL_CREATED_AT]),
        )
        policy = Policy.from_json(annotations[ANNOTATION_POLICY_JSON])
        digest = annotations[ANNOTATION_POLICY_DIGEST]
    except (KeyError, ValueError, SandboxError) as exc:
        raise PolicyNotEnforced(
            f"The labels of container {info.id:.12} do not describe a sandbox."
        ) from exc
    if policy.digest != digest:
        raise PolicyNotEnforced(f"The policy of container {info.id:.12} is not of its digest.")
    return identity, policy


def _time(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
