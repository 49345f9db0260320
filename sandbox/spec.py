"""From a policy to a container: the only place that decides isolation, and it is pure.

``compile_spec`` turns a policy and a session's identity into a :class:`ContainerSpec`; a runtime
adapter only translates that. After creation the adapter reports what the engine applied as the same
facts, and :func:`mismatches` says where they differ.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tmpfs(_Frozen):
    """A bounded filesystem in memory."""

    target: str
    size_bytes: int
    inodes: int
    mode: int
    uid: int
    gid: int
    noexec: bool = False


class Ulimit(_Frozen):
    """A resource limit of every process: ``name`` as in setrlimit(2), lower case."""

    name: str
    soft: int
    hard: int


class ContainerSpec(_Frozen):
    """A container as it must be, in engine-neutral words."""

    name: str
    image: str
    command: tuple[str, ...]
    labels: dict[str, str]
    environment: dict[str, str]
    hostname: str
    working_dir: str
    runtime: str
    uid: int
    gid: int
    network_mode: str
    dns: tuple[str, ...]
    read_only_root: bool
    init: bool
    privileged: bool
    cap_add: tuple[str, ...]
    cap_drop: tuple[str, ...]
    security_opt: tuple[str, ...]
    """``no-new-privileges:true`` and the like, without seccomp."""
    seccomp: str
    """The seccomp profile as compact JSON."""
    memory_bytes: int
    memory_swap_bytes: int
    nano_cpus: int
    pids_limit: int
    oom_score_adj: int
    shm_bytes: int
    ipc_mode: str
    cgroupns_mode: str
    ulimits: tuple[Ulimit, ...]
    tmpfs: tuple[Tmpfs, ...]
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]
    log_driver: str

    def facts(self) -> dict[str, Any]:
        """The isolation in a form that an inspection of the real container can be compared with."""
        return self.model_dump(exclude={"name", "labels", "environment"})
