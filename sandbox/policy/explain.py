"""A policy in sentences, and which of its rules decides about a path."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from sandbox.policy.models import EVERY_TOOL, Policy
from sandbox.policy.units import format_duration, format_size

SECRETS = "/run/secrets"


@dataclass(frozen=True, slots=True)
class Sentence:
    """What a policy means for one thing, and the key of the file that says so."""

    topic: str
    text: str
    rule: str


def explain(policy: Policy) -> list[Sentence]:
    """All that a policy allows, most important first."""
    return list(_sentences(policy))


def explain_path(policy: Policy, path: str) -> Sentence:
    """What code may do with a path inside, absolute or relative to the workspace, and which rule
    decides; only its name is looked at.
    """
    # One slash at the beginning: normpath keeps two, for which Linux has no meaning of its own.
    place = "/" + posixpath.normpath(posixpath.join("/workspace", path)).lstrip("/")
    rules = [
        (
            "/workspace",
            f"read and write, up to {format_size(policy.workspace.size_bytes)}",
            "workspace",
        ),
        ("/tmp", f"read and write, up to {format_size(policy.tmp.size_bytes)}", "tmp"),  # noqa: S108
        ("/dev/shm", f"read and write, up to {format_size(policy.shm_bytes)}", "shm"),  # noqa: S108
        *(
            (
                mount.target,
                ("read only" if mount.read_only else "read and write")
                + f": the folder {mount.path or '.'} of the root {mount.root}",
                f"mounts[{index}]",
            )
            for index, mount in enumerate(policy.mounts)
        ),
    ]
    if any(secret.delivery == "file" for secret in policy.secrets):
        rules.append((SECRETS, "read only: the secrets that the session is given", "secrets"))
    for target, text, rule in rules:
        if place == target or place.startswith(f"{target}/"):
            return Sentence(place, text, rule)
    return Sentence(
        place, "read only, as far as the image has it", "built-in: the root is read-only"
    )


def _sentences(policy: Policy) -> Iterator[Sentence]:
    limits = policy.limits
    yield Sentence(
        "runs",
        f"the image {policy.image.base}, under {', else '.join(policy.runtimes)}, with the seccomp "
        f"profile {policy.runtime.seccomp}",
        "image, runtime",
    )
    if policy.image.has_additions:
        built = "" if policy.image.locked else "; not built yet"
        added = [*policy.image.pip, *(f"{name} (Debian)" for name in policy.image.apt)]
        yield Sentence("adds", f"{', '.join(added)} to it{built}", "image.pip, image.apt")
    if policy.preload:
        yield Sentence("preloads", f"{', '.join(policy.preload)} into every kernel", "preload")
    yield from _network(policy)
    yield from _files(policy)
    for secret in policy.secrets:
        is_file = secret.delivery == "file"
        inside = f"inside, as {SECRETS}/{secret.name}" if is_file else "never inside"
        yield Sentence("secret", f"{secret.name}: {inside}", "secrets")
    yield Sentence(
        "spends",
        f"{limits.cpus:g} processors, {format_size(limits.memory_bytes)} of memory, "
        f"{limits.pids} processes, {format_duration(limits.execution_s)} for one execution",
        "limits",
    )
    yield Sentence(
        "lasts",
        f"{format_duration(limits.idle_s)} without use, {format_duration(limits.lifetime_s)} at "
        f"most; {limits.sessions_per_principal} sessions for one caller",
        "limits",
    )
    yield Sentence(
        "tools",
        "every tool" if policy.tools == (EVERY_TOOL,) else ", ".join(policy.tools),
        "tools",
    )
    if policy.approve.tools:
        yield Sentence(
            "asks",
            f"before {', '.join(policy.approve.tools)}; no answer within "
            f"{format_duration(policy.approve.timeout_s)} is a no",
            "approve",
        )


def _network(policy: Policy) -> Iterator[Sentence]:
    network = policy.network
    if network.is_none:
        yield Sentence("reaches", "nothing", "network")
        return
    for index, rule in enumerate(network.allow):
        yield Sentence("reaches", rule.in_words(), f"network.allow[{index}]")
    for index, denied in enumerate(network.deny):
        yield Sentence("never", str(denied), f"network.deny[{index}]")
    limits = network.limits
    yield Sentence(
        "through",
        f"{limits.connections} connections at once, {limits.rate_per_minute} a minute, "
        f"{format_size(limits.total_bytes)} in all, {format_duration(limits.duration_s)} each",
        "network.limits",
    )


def _files(policy: Policy) -> Iterator[Sentence]:
    kept = ", which may be a named one that is kept" if policy.workspace.persistent else ""
    yield Sentence(
        "writes",
        f"/workspace, {format_size(policy.workspace.size_bytes)}{kept}; /tmp, "
        f"{format_size(policy.tmp.size_bytes)}; /dev/shm, {format_size(policy.shm_bytes)}",
        "workspace, tmp, shm",
    )
    for index, mount in enumerate(policy.mounts):
        access = "reads" if mount.read_only else "writes"
        yield Sentence(
            access,
            f"{mount.target}: {mount.path or '.'} of the operator's root {mount.root}"
            + (", and speaks to sockets in it" if mount.sockets == "allow" else ""),
            f"mounts[{index}]",
        )
