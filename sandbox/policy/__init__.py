"""Policies: the files that say what a sandbox may be, reach and consume.

``load`` reads them into a ``PolicySet`` of frozen ``Policy`` values; ``check_file`` says all that
is wrong with one. Everything here is pure but the reading of those files.
"""

from sandbox.policy.loader import DEFAULT_POLICY, PolicySet, check_file, load, seccomp_profile
from sandbox.policy.models import TOOLS, Limits, Policy, TmpfsPolicy, describe

__all__ = [
    "DEFAULT_POLICY",
    "TOOLS",
    "Limits",
    "Policy",
    "PolicySet",
    "TmpfsPolicy",
    "check_file",
    "describe",
    "load",
    "seccomp_profile",
]
