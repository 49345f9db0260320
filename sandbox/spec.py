"""From a policy to a container: the only place that decides isolation, and it is pure.

``compile_spec`` turns a policy and a session's identity into a :class:`ContainerSpec`; a runtime
adapter only translates that. After creation the adapter reports what the engine applied as the same
facts, and :func:`mismatches` says where they differ. ``docs/adr/0001-policy-in-one-place.md`` gives
the reason for each value.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, cast

from pydantic import BaseModel, ConfigDict

from sandbox.errors import NotPermitted, PolicyNotEnforced
from sandbox.policy import Policy, TmpfsPolicy
from sandbox.secretstore import MAX_VALUE_BYTES

LABEL_PREFIX = "io.sandbox."
LABEL_MANAGED = LABEL_PREFIX + "managed"
LABEL_OWNER = LABEL_PREFIX + "owner"
LABEL_SESSION = LABEL_PREFIX + "session"
LABEL_PRINCIPAL = LABEL_PREFIX + "principal"
LABEL_POLICY = LABEL_PREFIX + "policy"
LABEL_POLICY_DIGEST = LABEL_PREFIX + "policy-digest"
LABEL_POLICY_JSON = LABEL_PREFIX + "policy-json"
LABEL_CREATED_AT = LABEL_PREFIX + "created-at"
LABEL_EXPIRES_AT = LABEL_PREFIX + "expires-at"
LABEL_UID = LABEL_PREFIX + "uid"
LABEL_WORKSPACE = LABEL_PREFIX + "workspace"
LABEL_BROKER = LABEL_PREFIX + "broker"
"""Which broker made the container; given by it alone, never part of a spec."""

WORKSPACE = "/workspace"
TMP = "/tmp"  # noqa: S108  # the container's own
SHM = "/dev/shm"  # noqa: S108  # likewise
SECRETS = "/run/secrets"
HOSTNAME = "sandbox"
NETWORK_MODE = "none"
"""Whatever a policy opens goes through the link; a container has no network of its own."""
PROXY = "http://127.0.0.1:3128"
"""Where the supervisor takes what goes out; also SOCKS5."""
PROXY_VARIABLES = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), PROXY),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,::1"),
}
"""Also in a session that may reach nothing: there it is told which rule says so. Not ALL_PROXY,
for which programs need SOCKS that many do not have."""
CA_FILE = "/tmp/.sandbox/ca.pem"  # noqa: S108  # the container's own
CA_VARIABLES = (
    *("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"),
    "NODE_EXTRA_CA_CERTS",
)
"""What programs read to find the certificates they trust."""
NETWORK_VARIABLES = frozenset(
    {*PROXY_VARIABLES, *CA_VARIABLES, "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST"}
)
"""The variables by which programs find the way out that a policy opens."""
SUPERVISOR = ("/usr/bin/python3", "-I", "/opt/sandbox")

MIN_UID = 200_000
MAX_UID = 2_000_000_000
_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_ID_LENGTH = 26  # of five bits each: 130

_MASKED_IN_PROC = (
    # What an engine hides by itself.
    *("acpi", "asound", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list"),
    *("timer_stats",),
    # Which kernel this is and what it was started with.
    *("cmdline", "config.gz", "kallsyms", "modules", "version", "version_signature"),
    # What the host and its other sessions do: load, pressure, interrupts, pages, keys, locks.
    *("buddyinfo", "diskstats", "interrupts", "key-users", "loadavg", "locks", "pagetypeinfo"),
    *("pressure", "schedstat", "slabinfo", "softirqs", "swaps", "vmallocinfo", "vmstat"),
    *("zoneinfo",),
    # Which hardware and drivers it has, and doors to them.
    *("bus", "cgroups", "consoles", "crypto", "devices", "dma", "driver", "execdomains", "fs"),
    *("iomem", "ioports", "irq", "kmsg", "kpagecgroup", "kpagecount", "kpageflags", "misc"),
    *("mtrr", "partitions"),
)
# All of /sys but the session's own control group, in which it may see its limits: the probe proves
# them there, and the supervisor learns there that a kernel was killed for memory.
_MASKED_IN_SYS = (
    *("block", "bus", "class", "dev", "devices", "firmware", "hypervisor", "kernel", "module"),
    *("power", "fs/bpf", "fs/btrfs", "fs/ecryptfs", "fs/erofs", "fs/ext4", "fs/f2fs", "fs/fuse"),
    *("fs/gfs2", "fs/nfs", "fs/nilfs2", "fs/orangefs", "fs/pstore", "fs/resctrl", "fs/selinux"),
    *("fs/smackfs", "fs/virtiofs", "fs/xfs", "fs/zfs"),
)
MASKED_PATHS = tuple(f"/proc/{name}" for name in _MASKED_IN_PROC) + tuple(
    f"/sys/{name}" for name in _MASKED_IN_SYS
)
READONLY_PATHS = ("/proc/sys", "/proc/sysrq-trigger")

MEMLOCK_BYTES = 64 * 1024
OOM_SCORE_ADJ = 500


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


class Mount(_Frozen):
    """A folder of the engine's host: it alone, not what is mounted within it; no devices, no
    set-id programs."""

    source: str
    target: str
    read_only: bool = True


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
    mounts: tuple[Mount, ...] = ()
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]
    log_driver: str

    def facts(self) -> dict[str, Any]:
        """The isolation in a form that an inspection of the real container can be compared with."""
        return self.model_dump(exclude={"name", "labels", "environment"})


class SessionIdentity(_Frozen):
    """Whose container it is; all of it goes into labels.

    Times are Unix seconds; ``owner`` is the controller's state directory that made the session.
    """

    session_id: str
    principal: str
    owner: str
    uid: int
    created_at: float
    expires_at: float
    workspace: str = ""
    """The name of the workspace that it keeps; empty for none."""


def new_session_id() -> str:
    """A session id that nobody can guess: ``s-`` and 130 random bits in lower-case letters."""
    return "s-" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))


def new_uid() -> int:
    """A uid for one session.

    The kernel counts processes, watches and queues by uid over all containers, so sessions that
    shared one could use up each other's. The range is above what systems give to people.
    """
    return MIN_UID + secrets.randbelow(MAX_UID - MIN_UID)


def compile_spec(
    policy: Policy,
    identity: SessionIdentity,
    *,
    image: str,
    runtimes: tuple[str, ...],
    seccomp: str,
    mounts: tuple[Mount, ...] = (),
    runtime_override: str | None = None,
    cpus_available: int | None = None,
    variables: Mapping[str, str] | None = None,
) -> ContainerSpec:
    """Decide every property of a session's container.

    Args:
        policy: What the session may be and consume.
        identity: Whose it is.
        image: The engine's reference of the policy's image.
        runtimes: The runtimes that the engine has.
        seccomp: The profile as JSON.
        mounts: The folders that the policy's mounts mean (``sandbox.mounts``).
        runtime_override: A runtime to take if the policy permits it; None or empty for the
            policy's preference.
        cpus_available: The processors of the engine, which refuses more; None when not known.
        variables: Those of ``NETWORK_VARIABLES`` by which programs find the way out.

    Raises:
        NotPermitted: The policy does not permit the override.
        PolicyNotEnforced: The engine has no runtime that the policy permits, or the mounts are not
            the policy's.
    """
    wanted = [(rule.target, rule.read_only) for rule in policy.mounts]
    if [(mount.target, mount.read_only) for mount in mounts] != wanted:
        raise PolicyNotEnforced(f"The mounts are not those of the policy {policy.name!r}.")
    limits = policy.limits
    cpus = min(limits.cpus, cpus_available or limits.cpus)
    return ContainerSpec(
        name=f"sandbox-{identity.session_id.removeprefix('s-')[:12]}",
        image=image,
        command=SUPERVISOR,
        labels=_labels(policy, identity),
        environment={
            # Libraries count the host's processors and would start a thread for each.
            "OMP_NUM_THREADS": str(math.ceil(cpus)),
            **PROXY_VARIABLES,
            **(variables or {}),
        },
        hostname=HOSTNAME,
        working_dir=WORKSPACE,
        runtime=_runtime(policy, runtimes, runtime_override),
        uid=identity.uid,
        gid=identity.uid,
        network_mode=NETWORK_MODE,
        dns=("127.0.0.1",),
        read_only_root=True,
        init=True,
        privileged=False,
        cap_add=(),
        cap_drop=("ALL",),
        security_opt=("no-new-privileges:true",),
        seccomp=seccomp,
        memory_bytes=limits.memory_bytes,
        memory_swap_bytes=limits.memory_bytes,
        nano_cpus=round(cpus * 1_000_000_000),
        pids_limit=limits.pids,
        oom_score_adj=OOM_SCORE_ADJ,
        shm_bytes=policy.shm_bytes,
        ipc_mode="private",
        cgroupns_mode="private",
        ulimits=(
            Ulimit(name="core", soft=0, hard=0),
            Ulimit(name="fsize", soft=limits.file_size_bytes, hard=limits.file_size_bytes),
            Ulimit(name="memlock", soft=MEMLOCK_BYTES, hard=MEMLOCK_BYTES),
            Ulimit(name="msgqueue", soft=0, hard=0),
            Ulimit(name="nofile", soft=limits.open_files, hard=limits.open_files),
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


def mismatches(spec: ContainerSpec, facts: Mapping[str, Any] | None) -> list[str]:
    """Say where what an engine applied differs from the spec.

    Args:
        spec: What was asked for.
        facts: What an inspection found, in the words of :meth:`ContainerSpec.facts`.

    Returns:
        A sentence for each difference; empty when everything is as it must be. A fact that is not
        there is a difference too.
    """
    found = dict(facts or {})
    different: list[str] = []
    for name, expected in spec.facts().items():
        if name not in found:
            different.append(f"{name}: the engine does not say it, must be {_shown(expected)}")
            continue
        ours, theirs = _canonical(name, expected), _canonical(name, found[name])
        if ours == theirs:
            continue
        if isinstance(ours, list) and isinstance(theirs, list):
            missing = [each for each in cast("list[Any]", ours) if each not in theirs]
            extra = [each for each in cast("list[Any]", theirs) if each not in ours]
            different.append(f"{name}: lacks {_shown(missing)}, has {_shown(extra)} too many")
        else:
            different.append(f"{name}: is {_shown(theirs)}, must be {_shown(ours)}")
    different.extend(
        f"{name}: is {_shown(found[name])}, but nothing of that kind was asked for"
        for name in sorted(found.keys() - spec.facts().keys())
        if found[name]
    )
    return different


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


def _labels(policy: Policy, identity: SessionIdentity) -> dict[str, str]:
    return {
        LABEL_MANAGED: "1",
        LABEL_OWNER: identity.owner,
        LABEL_SESSION: identity.session_id,
        LABEL_PRINCIPAL: identity.principal,
        LABEL_POLICY: policy.name,
        LABEL_POLICY_DIGEST: policy.digest,
        LABEL_POLICY_JSON: policy.to_json(),
        LABEL_CREATED_AT: repr(identity.created_at),
        LABEL_EXPIRES_AT: repr(identity.expires_at),
        LABEL_UID: str(identity.uid),
        **({LABEL_WORKSPACE: identity.workspace} if identity.workspace else {}),
    }


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


_UNORDERED = frozenset(
    {
        *("cap_add", "cap_drop", "security_opt", "ulimits", "tmpfs", "mounts", "masked_paths"),
        "readonly_paths",
    }
)


def _canonical(name: str, value: Any) -> Any:
    """A fact in the one form in which it is compared: what JSON keeps, sets in one order."""
    if name == "seccomp":
        try:
            value = json.loads(value)
        except (TypeError, ValueError):
            return value
    plain = json.loads(json.dumps(value, sort_keys=True, default=str))
    if name in _UNORDERED and isinstance(plain, list):
        return sorted(cast("list[Any]", plain), key=lambda each: json.dumps(each, sort_keys=True))
    return plain


def _shown(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return text if len(text) <= 200 else f"{text[:200]}…"
