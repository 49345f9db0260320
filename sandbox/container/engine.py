"""What an engine says: of itself, and of a container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sandbox.container.features import Feature

ContainerState = Literal["created", "running", "paused", "exited", "missing"]


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """What the engine says of a container.

    Args:
        state: ``missing`` when there is none with that id.
        exit_code: Of the main process, once exited; None in listings.
        oom_killed: Whether the engine says that the main process ran out of memory; False in
            listings.
        facts: The isolation that the engine says it applied, by the names of features and in the
            form of :func:`sandbox.container.features.values_of`. What it does not report is not
            there. None in listings.
        held: What the host's kernel holds it to, ``memory`` in bytes and ``pids``, each None for no
            limit. None in listings, and where nobody here can read it.
    """

    id: str
    name: str
    state: ContainerState
    labels: Mapping[str, str]
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])
    exit_code: int | None = None
    oom_killed: bool = False
    facts: Mapping[str, Any] | None = None
    held: Mapping[str, int | None] | None = None


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is: version, cgroup version, runtimes it has, whether seccomp works."""

    name: str
    version: str
    api_version: str
    cgroup_version: int
    runtimes: tuple[str, ...]
    seccomp: bool
    architecture: str
    memory_bytes: int
    cpus: int
    data_root: str = ""
    """The directory that is the engine's own; empty when it does not say."""
    has_apparmor: bool = False
    apparmor: str = ""
    """The AppArmor profile that containers must have; empty for what the engine gives them."""
    disk: str = ""
    """The block device that a policy's rates are for, if one is known and the engine can."""
    enforces: frozenset[Feature] = frozenset()
    """What it can make true of a container; what is not in here is refused before it is made."""
    reports: frozenset[Feature] = frozenset()
    """What its inspection tells; what is not in here has to be proved inside."""

    @property
    def title(self) -> str:
        """The engine, as people know it."""
        return f"{self.name!r} (version {self.version})"
