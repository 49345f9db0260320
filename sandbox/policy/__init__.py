"""Policies: the files that say what a sandbox may be, reach and consume.

``load`` reads them into a ``PolicySet`` of frozen ``Policy`` values; ``check_file`` says all that
is wrong with one. Everything here is pure but the reading of those files.
"""

from sandbox.policy.access import ApprovePolicy, MountRule, SecretRule
from sandbox.policy.cautions import cautions
from sandbox.policy.difference import Change, difference
from sandbox.policy.explain import Sentence, explain, explain_path
from sandbox.policy.live import LivePolicies
from sandbox.policy.loader import (
    DEFAULT_POLICY,
    PolicySet,
    cautions_of,
    check_file,
    load,
    load_file,
    seccomp_profile,
)
from sandbox.policy.models import (
    TOOLS,
    Limits,
    Policy,
    RuntimePolicy,
    TmpfsPolicy,
    WorkspacePolicy,
    describe,
)
from sandbox.policy.network import AllowRule, DenyRule, NetworkLimits, NetworkPolicy
from sandbox.policy.packages import ImagePolicy
from sandbox.policy.schema import json_schema

__all__ = [
    "DEFAULT_POLICY",
    "TOOLS",
    "AllowRule",
    "ApprovePolicy",
    "Change",
    "DenyRule",
    "ImagePolicy",
    "Limits",
    "LivePolicies",
    "MountRule",
    "NetworkLimits",
    "NetworkPolicy",
    "Policy",
    "PolicySet",
    "RuntimePolicy",
    "SecretRule",
    "Sentence",
    "TmpfsPolicy",
    "WorkspacePolicy",
    "cautions",
    "cautions_of",
    "check_file",
    "describe",
    "difference",
    "explain",
    "explain_path",
    "json_schema",
    "load",
    "load_file",
    "seccomp_profile",
]
