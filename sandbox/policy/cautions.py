"""What a valid policy had better not say."""

from __future__ import annotations

from collections.abc import Iterator

from sandbox.policy.models import Policy

MAX_SESSION_FILES = 262_144
"""Open files of a session: a host with 4 GiB has about 400,000 for all its programs together."""


def cautions(policy: Policy) -> list[str]:
    """Each with its key and a remedy; empty when there is nothing to say."""
    return list(_cautions(policy))


def _cautions(policy: Policy) -> Iterator[str]:
    limits = policy.limits
    files = limits.open_files * limits.pids
    if files > MAX_SESSION_FILES:
        yield (
            f"limits.open_files: {limits.open_files:,} of each of {limits.pids:,} processes "
            f"(limits.pids) are {files:,} open files, which a host has once for all its sessions. "
            f"Keep the product within {MAX_SESSION_FILES:,}."
        )
    if policy.image.is_unbuilt:
        yield (
            "image: the packages that it adds are not built yet, so no session of it opens. Run "
            "`sandbox image build --policy FILE`."
        )
    for index, mount in enumerate(policy.mounts):
        if mount.sockets == "allow":
            yield (
                f"mounts.{index}.sockets: code may speak to the host's programs behind sockets and "
                "FIFOs in this folder. Keep `refuse`, unless you know each of them."
            )
