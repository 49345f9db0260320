"""A container as it must be, in words of no engine.

``sandbox.container.compiler`` makes it from a policy; a runtime's adapter only translates it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from sandbox.values import Frozen

WORKSPACE = "/workspace"
TMP = "/tmp"  # noqa: S108  # the container's own
SHM = "/dev/shm"  # noqa: S108  # likewise
SECRETS = "/run/secrets"

MAX_LABELS = 32
MAX_ANNOTATION_BYTES = 192 * 1024
"""Of all annotations of a container together; Kubernetes has room for 256 KiB."""


def _fits(annotations: dict[str, str]) -> dict[str, str]:
    size = sum(len(name) + len(text.encode()) for name, text in annotations.items())
    if size > MAX_ANNOTATION_BYTES:
        raise ValueError(f"the annotations have {size} bytes, more than {MAX_ANNOTATION_BYTES}")
    return annotations


_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
Name = Annotated[str, StringConstraints(pattern=rf"\A{_WORD}\z")]
LabelValue = Annotated[str, StringConstraints(pattern=rf"\A(?:{_WORD})?\z")]
"""What every engine takes as the value of a label: the form that Kubernetes wants."""


class Tmpfs(Frozen):
    """A bounded filesystem in memory."""

    target: str
    size_bytes: int
    inodes: int
    mode: int
    uid: int
    gid: int
    noexec: bool = False


class Mount(Frozen):
    """A folder of the engine's host: it alone, not what is mounted within it; no devices, no
    set-id programs."""

    source: str
    target: str
    read_only: bool = True


RlimitName = Literal["core", "fsize", "memlock", "msgqueue", "nofile", "nproc"]


class Ulimit(Frozen):
    """A resource limit of every process: ``name`` as in setrlimit(2), lower case."""

    name: RlimitName
    soft: int
    hard: int


class DiskRate(Frozen):
    """How fast a block device of the engine's host may be read, or written."""

    device: str
    bytes_per_s: int


class ContainerSpec(Frozen):
    """A container as it must be, in engine-neutral words."""

    name: str
    image: str
    command: tuple[str, ...]
    labels: Annotated[dict[Name, LabelValue], Field(max_length=MAX_LABELS)]
    """By which containers are found."""
    annotations: Annotated[dict[Name, str], Field(max_length=MAX_LABELS), AfterValidator(_fits)]
    """What else a container carries for its controller: text of any form."""
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
    no_new_privileges: bool
    apparmor: str
    """The AppArmor profile of the engine's host; empty for what the engine gives."""
    seccomp: str
    """The seccomp profile as compact JSON."""
    memory_bytes: int
    """Of the container: what gVisor needs is among it."""
    memory_swap_bytes: int
    nano_cpus: int
    pids_limit: int
    """Of the host's processes and threads, gVisor's own among them."""
    oom_score_adj: int
    disk_reads: tuple[DiskRate, ...]
    disk_writes: tuple[DiskRate, ...]
    sysctls: dict[str, str]
    shm_bytes: int
    ipc_mode: str
    cgroupns_mode: str
    ulimits: tuple[Ulimit, ...]
    tmpfs: tuple[Tmpfs, ...]
    mounts: tuple[Mount, ...] = ()
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]
    log_driver: str
