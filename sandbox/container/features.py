"""What a spec wishes of an engine, wish by wish, and what has to answer for each.

An engine says which features it can enforce and which it can report (``EngineInfo``). The table
here says the rest: by which checks inside the container a feature is decided where the engine does
not report it. A feature without such checks has to be reported, for nothing is assumed; only what
is ``moot`` needs neither. ``docs/adr/0012-an-engine-says-what-it-can.md`` gives the reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sandbox.container.spec import SHM, ContainerSpec, RlimitName
from sandbox.errors import PolicyNotEnforced

NOTHING = "nothing"


class Feature(StrEnum):
    """One wish. The value is its name to people, and the key of the fact that reports it."""

    IMAGE = "image"
    COMMAND = "command"
    WORKING_DIR = "working-dir"
    HOSTNAME = "hostname"
    ENVIRONMENT = "environment"
    RUNTIME = "runtime"
    USER = "user"
    NETWORK = "network"
    RESOLVER = "resolver"
    READ_ONLY_ROOT = "read-only-root"
    INIT = "init"
    CAPABILITIES = "capabilities"
    NO_NEW_PRIVILEGES = "no-new-privileges"
    SECCOMP = "seccomp"
    APPARMOR = "apparmor"
    MEMORY = "memory"
    SWAP = "swap"
    CPU = "cpu"
    PIDS = "pids"
    OOM_SCORE = "oom-score"
    DISK_RATES = "disk-rates"
    SYSCTLS = "sysctls"
    SHM_SIZE = "shm-size"
    PRIVATE_IPC = "private-ipc"
    PRIVATE_CGROUPS = "private-cgroups"
    ULIMIT_CORE = "ulimit.core"
    ULIMIT_FSIZE = "ulimit.fsize"
    ULIMIT_MEMLOCK = "ulimit.memlock"
    ULIMIT_MSGQUEUE = "ulimit.msgqueue"
    ULIMIT_NOFILE = "ulimit.nofile"
    ULIMIT_NPROC = "ulimit.nproc"
    TMPFS_SIZE = "tmpfs.size"
    TMPFS_INODES = "tmpfs.inodes"
    TMPFS_OWNER = "tmpfs.owner"
    TMPFS_NOEXEC = "tmpfs.noexec"
    MOUNTS = "mounts"
    MOUNTS_READ_ONLY = "mounts.read-only"
    MOUNTS_ALONE = "mounts.alone"
    MASKED_PATHS = "masked-paths"
    READ_ONLY_PATHS = "read-only-paths"
    NO_LOG = "log"
    NOTHING_ELSE = "nothing-else"


ALL = frozenset(Feature)
REPORTABLE = ALL - {Feature.ENVIRONMENT}
"""What an inspection may tell. Not the environment: images add their own to it, and a later
controller does not know what an earlier one gave; so it is always measured inside."""
OF_CGROUPS = "Turn this controller of control groups on where the engine runs."


@dataclass(frozen=True, slots=True)
class Trait:
    """What there is to know of a feature.

    Args:
        value: What a spec wishes, as JSON has it; empty where it wishes nothing.
        checks: The names of the checks inside that together decide it; none where it cannot be
            decided there, and the engine has to report it.
        moot: Why it matters to nobody but the session itself, so that an engine may do without.
        remedy: How an engine comes to enforce it.
    """

    value: Callable[[ContainerSpec], Any]
    checks: Callable[[ContainerSpec], Iterable[str]] = lambda _: ()
    moot: str = ""
    remedy: str = ""


def _limit(name: RlimitName) -> Trait:
    def value(spec: ContainerSpec) -> dict[str, int]:
        found = [limit for limit in spec.ulimits if limit.name == name]
        return {"soft": found[0].soft, "hard": found[0].hard} if found else {}

    return Trait(value, lambda _: (name,))  # the hard limit, which bounds the other


TRAITS: dict[Feature, Trait] = {
    Feature.IMAGE: Trait(lambda spec: spec.image),
    Feature.COMMAND: Trait(lambda spec: list(spec.command)),
    Feature.WORKING_DIR: Trait(
        lambda spec: spec.working_dir,
        moot="the supervisor names the folder of all that it starts",
    ),
    Feature.HOSTNAME: Trait(lambda spec: spec.hostname, lambda _: ("hostname",)),
    # That there is no other variable: engines add the image's own to these.
    Feature.ENVIRONMENT: Trait(lambda spec: sorted(spec.environment), lambda _: ("environment",)),
    Feature.RUNTIME: Trait(lambda spec: spec.runtime),
    Feature.USER: Trait(
        lambda spec: {"uid": spec.uid, "gid": spec.gid}, lambda _: ("uid", "gid", "groups")
    ),
    Feature.NETWORK: Trait(lambda spec: spec.network_mode, lambda _: ("interfaces", "routes")),
    Feature.RESOLVER: Trait(lambda spec: list(spec.dns), lambda _: ("resolvers",)),
    Feature.READ_ONLY_ROOT: Trait(
        lambda spec: spec.read_only_root, lambda _: ("root_read_only", "writable")
    ),
    Feature.INIT: Trait(
        lambda spec: spec.init,
        moot="processes that nobody reaps count towards the session's own limit of them",
    ),
    Feature.CAPABILITIES: Trait(
        lambda spec: {
            "privileged": spec.privileged,
            "add": sorted(spec.cap_add),
            "drop": sorted(spec.cap_drop),
        },
        lambda _: (
            f"capabilities.{each}"
            for each in ("effective", "permitted", "bounding", "inheritable", "ambient")
        ),
    ),
    Feature.NO_NEW_PRIVILEGES: Trait(
        lambda spec: spec.no_new_privileges, lambda _: ("no_new_privs",)
    ),
    # Inside some calls are tried, of several hundred.
    Feature.SECCOMP: Trait(
        lambda spec: spec.seccomp, remedy="Run the engine on a kernel with seccomp filters."
    ),
    Feature.APPARMOR: Trait(
        lambda spec: spec.apparmor, remedy="Run the engine on a kernel with AppArmor."
    ),
    Feature.MEMORY: Trait(
        lambda spec: spec.memory_bytes, lambda _: ("memory_limit",), remedy=OF_CGROUPS
    ),
    Feature.SWAP: Trait(lambda spec: spec.memory_swap_bytes, remedy=OF_CGROUPS),
    Feature.CPU: Trait(lambda spec: spec.nano_cpus, remedy=OF_CGROUPS),
    Feature.PIDS: Trait(lambda spec: spec.pids_limit, lambda _: ("pids_limit",), remedy=OF_CGROUPS),
    Feature.OOM_SCORE: Trait(lambda spec: spec.oom_score_adj),
    Feature.DISK_RATES: Trait(
        lambda spec: {
            way: [rate.model_dump() for rate in rates]
            for way, rates in (("read", spec.disk_reads), ("write", spec.disk_writes))
            if rates
        },
        lambda spec: (
            way
            for way, rates in (("disk_read", spec.disk_reads), ("disk_write", spec.disk_writes))
            if rates
        ),
        remedy=OF_CGROUPS,
    ),
    Feature.SYSCTLS: Trait(lambda spec: spec.sysctls, lambda spec: spec.sysctls),
    Feature.SHM_SIZE: Trait(lambda spec: spec.shm_bytes, lambda _: (f"mounts.{SHM}",)),
    Feature.PRIVATE_IPC: Trait(lambda spec: spec.ipc_mode),
    Feature.PRIVATE_CGROUPS: Trait(lambda spec: spec.cgroupns_mode),
    Feature.ULIMIT_CORE: _limit("core"),
    Feature.ULIMIT_FSIZE: _limit("fsize"),
    Feature.ULIMIT_MEMLOCK: _limit("memlock"),
    Feature.ULIMIT_MSGQUEUE: _limit("msgqueue"),
    Feature.ULIMIT_NOFILE: _limit("nofile"),
    Feature.ULIMIT_NPROC: _limit("nproc"),
    Feature.TMPFS_SIZE: Trait(
        lambda spec: {each.target: each.size_bytes for each in spec.tmpfs},
        lambda spec: (f"mounts.{each.target}" for each in spec.tmpfs),
    ),
    Feature.TMPFS_INODES: Trait(
        lambda spec: {each.target: each.inodes for each in spec.tmpfs},
        lambda spec: (f"mounts.{each.target}.inodes" for each in spec.tmpfs),
    ),
    Feature.TMPFS_OWNER: Trait(
        lambda spec: {each.target: [each.mode, each.uid, each.gid] for each in spec.tmpfs}
    ),
    Feature.TMPFS_NOEXEC: Trait(
        lambda spec: sorted(each.target for each in spec.tmpfs if each.noexec),
        lambda spec: (f"mounts.{each.target}.noexec" for each in spec.tmpfs if each.noexec),
    ),
    Feature.MOUNTS: Trait(
        lambda spec: sorted([each.target, each.source] for each in spec.mounts),
        lambda spec: (
            f"mounts.{each.target}{part}" for each in spec.mounts for part in ("", ".directory")
        ),
    ),
    Feature.MOUNTS_READ_ONLY: Trait(
        lambda spec: sorted(each.target for each in spec.mounts if each.read_only),
        lambda spec: (f"mounts.{each.target}.write" for each in spec.mounts if each.read_only),
    ),
    Feature.MOUNTS_ALONE: Trait(
        lambda spec: sorted(each.target for each in spec.mounts), lambda _: ("mounts.unexpected",)
    ),
    # Inside only those of them are looked for that every Linux has.
    Feature.MASKED_PATHS: Trait(lambda spec: sorted(spec.masked_paths)),
    Feature.READ_ONLY_PATHS: Trait(lambda spec: sorted(spec.readonly_paths)),
    Feature.NO_LOG: Trait(lambda spec: spec.log_driver),
    # No device, group, volume or namespace of the host that a spec has no word for.
    Feature.NOTHING_ELSE: Trait(lambda _: NOTHING),
}


def values_of(spec: ContainerSpec) -> dict[Feature, Any]:
    """What a spec says to every feature, also where that is nothing."""
    return {feature: trait.value(spec) for feature, trait in TRAITS.items()}


def wishes(spec: ContainerSpec) -> dict[Feature, Any]:
    """What a spec wishes: a container may have no less, and no more."""
    return {name: value for name, value in values_of(spec).items() if value not in ("", [], {})}


def require_enforceable(spec: ContainerSpec, enforces: AbstractSet[Feature], engine: str) -> None:
    """Refuse a container before it is made if its engine cannot make it so.

    Raises:
        PolicyNotEnforced: It names each wish, the engine, and what to do.
    """
    lacking = [name for name in wishes(spec) if name not in enforces and not TRAITS[name].moot]
    if lacking:
        remedies = dict.fromkeys(TRAITS[name].remedy for name in lacking if TRAITS[name].remedy)
        raise PolicyNotEnforced(
            f"The engine {engine} cannot enforce what a sandbox must have: {', '.join(lacking)}.",
            remedy=" ".join(remedies) or "Use an engine that can; `sandbox doctor` checks it.",
        )


def unreported(spec: ContainerSpec, reports: AbstractSet[Feature]) -> list[Feature]:
    """The wishes that an engine does not report, so that something else has to answer for them."""
    return [name for name in wishes(spec) if name not in reports]


def deciding(feature: Feature, spec: ContainerSpec, made: Collection[str]) -> list[str]:
    """The checks inside that decide a feature; empty unless all of them were made."""
    names = list(TRAITS[feature].checks(spec))
    return names if set(names) <= set(made) else []
