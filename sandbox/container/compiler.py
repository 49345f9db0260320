"""From a policy to a container: the only place that decides isolation, and it is pure.

``docs/adr/0001-policy-in-one-place.md`` gives the reason for each value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from sandbox.container.engine import ContainerInfo, EngineInfo
from sandbox.container.features import Feature, require_enforceable
from sandbox.container.identity import SandboxIdentity
from sandbox.container.labels import annotations_of, labels_of
from sandbox.container.masks import MASKED_PATHS, READONLY_PATHS
from sandbox.container.mounts import sources
from sandbox.container.roots import Root
from sandbox.container.spec import (
    SECRETS,
    TMP,
    WORKSPACE,
    ContainerSpec,
    DiskRate,
    Mount,
    Tmpfs,
    Ulimit,
)
from sandbox.container.variables import PROCESSOR_VARIABLES, PROXY_VARIABLES
from sandbox.errors import NotPermitted, PolicyNotEnforced
from sandbox.policy import Policy, TmpfsPolicy
from sandbox.secrets import MAX_VALUE_BYTES

HOSTNAME = "sandbox"
NETWORK_MODE = "none"
"""Whatever a policy opens goes through the link; a container has no network of its own."""
SUPERVISOR = ("/usr/bin/python3", "-I", "/opt/sandbox")
MEMLOCK_BYTES = 64 * 1024
OOM_SCORE_ADJ = 500

SYSCTLS = {
    "net.ipv4.tcp_rmem": "4096 65536 65536",
    "net.ipv4.tcp_wmem": "4096 16384 65536",
}
"""What the container's own network lends a connection at most: control groups of version 1 do not
count it. Of datagrams and of what programs ask for themselves, the seccomp profile sees to it."""

GVISOR_THREADS = 64
GVISOR_THREADS_PER_PROCESS = 20
"""What gVisor needs of the host's processes, at rest and for each process inside. Measured under
its ptrace platform: 40 at rest, 6.6 for each process, which it keeps, and up to 15.5 where programs
are started without end, since each that has run on another of its threads counts once more."""
GVISOR_BYTES = 64 * 1024**2
GVISOR_BYTES_PER_PROCESS = 8 * 1024**2
"""What it needs of memory: it copies what a process shares with its parent in pieces of 2 MiB, so a
fork of Python costs 4.3 MiB where Linux takes 0.3, and 13 once it has run for a while."""


def compile_spec(
    policy: Policy,
    identity: SandboxIdentity,
    *,
    engine: EngineInfo,
    image: str,
    seccomp: str,
    mounts: tuple[Mount, ...] = (),
    runtime_override: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> ContainerSpec:
    """Decide every property of a sandbox's container.

    Args:
        image: The engine's reference of the policy's image.
        seccomp: The profile as JSON.
        mounts: The folders that the policy's mounts mean (``sandbox.container.mounts``).
        runtime_override: A runtime to take if the policy permits it; None or empty for the
            policy's preference.
        variables: Those of ``NETWORK_VARIABLES`` by which programs find the way out.

    Raises:
        NotPermitted: The policy does not permit the override.
        PolicyNotEnforced: The engine has no runtime that the policy permits, or cannot enforce one
            of these properties, or the mounts are not the policy's.
    """
    wanted = [(rule.target, rule.read_only) for rule in policy.mounts]
    if [(mount.target, mount.read_only) for mount in mounts] != wanted:
        raise PolicyNotEnforced(f"The mounts are not those of the policy {policy.name!r}.")
    limits = policy.limits
    cpus = min(limits.cpus, engine.cpus or limits.cpus)
    runtime = _runtime(policy, engine.runtimes, runtime_override)
    memory_bytes = _memory_limit(runtime, limits.memory_bytes, limits.pids)
    spec = ContainerSpec(
        name=f"sandbox-{identity.sandbox_id.removeprefix('sb-')[:12]}",
        image=image,
        command=(*SUPERVISOR, *_preload(policy)),
        labels=labels_of(identity),
        annotations=annotations_of(policy),
        environment={
            **dict.fromkeys(PROCESSOR_VARIABLES, str(math.ceil(cpus))),
            **PROXY_VARIABLES,
            **(variables or {}),
        },
        hostname=HOSTNAME,
        working_dir=WORKSPACE,
        runtime=runtime,
        uid=identity.uid,
        gid=identity.uid,
        network_mode=NETWORK_MODE,
        dns=("127.0.0.1",),
        read_only_root=True,
        init=True,
        privileged=False,
        cap_add=(),
        cap_drop=("ALL",),
        no_new_privileges=True,
        apparmor=engine.apparmor,
        seccomp=seccomp,
        memory_bytes=memory_bytes,
        memory_swap_bytes=memory_bytes,
        nano_cpus=round(cpus * 1_000_000_000),
        pids_limit=_pids_limit(runtime, limits.pids),
        oom_score_adj=OOM_SCORE_ADJ,
        disk_reads=_disk_rates(engine.disk, limits.disk_read_bytes),
        disk_writes=_disk_rates(engine.disk, limits.disk_write_bytes),
        sysctls=SYSCTLS,
        shm_bytes=policy.shm_bytes,
        ipc_mode="private",
        cgroupns_mode="private",
        ulimits=(
            Ulimit(name="core", soft=0, hard=0),
            Ulimit(name="fsize", soft=limits.file_size_bytes, hard=limits.file_size_bytes),
            Ulimit(name="memlock", soft=MEMLOCK_BYTES, hard=MEMLOCK_BYTES),
            Ulimit(name="msgqueue", soft=0, hard=0),
            Ulimit(name="nofile", soft=limits.open_files, hard=limits.open_files),
            *_process_limit(runtime, limits.pids),
        ),
        tmpfs=(
            _tmpfs(TMP, policy.tmp, identity.uid),
            _tmpfs(WORKSPACE, policy.workspace, identity.uid),
            *_secrets(policy, identity.uid),
        ),
        mounts=mounts,
        masked_paths=MASKED_PATHS,
        readonly_paths=READONLY_PATHS,
        log_driver="none",
    )
    require_enforceable(spec, engine.enforces, engine.title)
    return spec


def recompile(
    info: ContainerInfo,
    identity: SandboxIdentity,
    policy: Policy,
    engine: EngineInfo,
    seccomp: str,
    roots: tuple[Root, ...],
) -> ContainerSpec:
    """The spec that a container of these labels must match.

    Its image and its runtime are taken from the container: a newer image, or another preference
    since, is no reason to end a live sandbox. What its roots are now counts: a sandbox must not go
    on with a folder that the operator no longer lends.

    Raises:
        SandboxError: The policy does not permit this container.
    """
    facts = info.facts or {}
    spec = compile_spec(
        policy,
        identity,
        engine=engine,
        image=str(facts.get(Feature.IMAGE)),
        seccomp=seccomp,
        mounts=sources(policy, roots, engine.data_root),
        runtime_override=str(facts.get(Feature.RUNTIME)),
    )
    if not (
        spec.labels.items() <= info.labels.items()
        and spec.annotations.items() <= info.annotations.items()
    ):
        raise PolicyNotEnforced(f"The labels of container {info.id:.12} do not fit together.")
    return spec


def _runtime(policy: Policy, runtimes: tuple[str, ...], override: str | None) -> str:
    permitted = tuple(policy.runtimes)
    if override:
        if override not in permitted:
            raise NotPermitted(
                f"The policy {policy.name!r} does not permit the runtime {override!r}.",
                remedy=f"It permits {', '.join(permitted)}.",
            )
        permitted = (override,)
    for name in permitted:
        if name in runtimes:
            return name
    raise PolicyNotEnforced(
        f"The engine has none of the runtimes that the policy {policy.name!r} needs: "
        f"{', '.join(permitted)}.",
        remedy=f"It has {', '.join(runtimes) or 'none'}; `sandbox doctor` says how to add one.",
    )


def _pids_limit(runtime: str, pids: int) -> int:
    """What the engine counts: under gVisor its own threads, which the code inside is not to feel.

    At this limit gVisor ends with all that is in it, so there the code's own limit comes first.
    """
    if runtime != "runsc":
        return pids
    return GVISOR_THREADS + GVISOR_THREADS_PER_PROCESS * pids


def _memory_limit(runtime: str, memory_bytes: int, pids: int) -> int:
    """The same of memory, at whose limit gVisor ends too."""
    if runtime != "runsc":
        return memory_bytes
    return memory_bytes + GVISOR_BYTES + GVISOR_BYTES_PER_PROCESS * pids


def _process_limit(runtime: str, pids: int) -> Iterator[Ulimit]:
    """Where the engine's limit is wider: what gVisor's kernel counts of the session's uid."""
    if runtime == "runsc":
        yield Ulimit(name="nproc", soft=pids, hard=pids)


def _preload(policy: Policy) -> Iterator[str]:
    """The argument that tells the supervisor what to import before it forks kernels."""
    if policy.preload:
        yield f"--preload={','.join(policy.preload)}"


def _disk_rates(disk: str, bytes_per_s: int) -> tuple[DiskRate, ...]:
    return (DiskRate(device=disk, bytes_per_s=bytes_per_s),) if disk else ()


def _tmpfs(target: str, policy: TmpfsPolicy, uid: int) -> Tmpfs:
    return Tmpfs(
        target=target,
        size_bytes=policy.size_bytes,
        inodes=policy.inodes,
        mode=0o700,
        uid=uid,
        gid=uid,
    )


def _secrets(policy: Policy, uid: int) -> Iterator[Tmpfs]:
    """Where the session finds the secrets that it is given, if its policy gives it any."""
    count = sum(secret.delivery == "file" for secret in policy.secrets)
    if count:
        yield Tmpfs(
            target=SECRETS,
            size_bytes=(count + 1) * MAX_VALUE_BYTES,  # one more, for each is written beside first
            inodes=count + 8,
            mode=0o700,
            uid=uid,
            gid=uid,
            noexec=True,
        )
