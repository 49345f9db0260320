"""The proof that a container is what its spec says, from what the supervisor measured inside.

What can be tried is tried: forbidden calls are made, files are created where nothing may be
written. Limits of memory and of processes are read from the control group instead, for trying them
would cost the session what it is to have.

The supervisor is not trusted with anything, so this is no protection from it. It catches the other
case: an engine, a runtime or a host that silently applied less than it was asked for. Every session
is proved before anyone gets it; a single wrong check and the container is removed.

Under ``runsc`` the kernel inside is gVisor's, and some things are its own affair: it filters no
calls by our profile unless told to, so calls that it serves itself inside the sandbox may succeed
(``SERVED_BY_GVISOR``) and devices that it plays itself are there (``_GVISOR_DEVICES``); it has no
files to mask, since its /proc and /sys show nothing of the host; it shows no control groups, or
plays some without limits, so that the engine's inspection and the host's own control groups answer
for memory and processes; and of a tmpfs it does not tell the inodes, nor nosuid and nodev, which
are moot for a process that can gain no privileges and make no devices; and a folder of the host has
there neither its own device and inode nor its options. The engine's inspection
answers for those there. Everything else is the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet

from sandbox.container.checks import Check, check, equal, none_but
from sandbox.container.features import TRAITS, Feature, deciding, unreported, wishes
from sandbox.container.measurement import Facts, MeasuredMount
from sandbox.container.spec import SHM, ContainerSpec, Mount, Tmpfs
from sandbox.container.variables import IMAGE_VARIABLES, NETWORK_VARIABLES
from sandbox.values import Told

FORBIDDEN_CALLS = (
    *("attach_bpf", "attach_filter", "bpf", "chroot", "clone3", "clone_newuser"),
    *("io_uring_setup", "keyctl", "mknod", "mount", "perf_event_open", "prctl_seccomp", "ptrace"),
    *("seccomp", "setns", "setuid", "socket_alg", "socket_buffers", "socket_netfilter"),
    *("socket_netlink", "socket_packet", "socket_raw", "socket_vsock", "unshare", "userfaultfd"),
)
SERVED_BY_GVISOR = frozenset(
    {
        *("attach_bpf", "attach_filter", "clone3", "clone_newuser", "io_uring_setup", "keyctl"),
        *("mknod", "prctl_seccomp", "ptrace", "seccomp", "setns", "socket_buffers"),
        *("socket_netlink", "unshare"),
    }
)

_DEVICES = frozenset(
    f"/dev/{name}"
    for name in ("console", "full", "null", "ptmx", "random", "tty", "urandom", "zero")
)
_GVISOR_DEVICES = frozenset({"/dev/fuse", "/dev/net/tun"})

# The mounts that an engine makes by itself: where, of which kind (None: any), whether read-only.
_ENGINE_MOUNTS: dict[str, tuple[frozenset[str] | None, bool]] = {
    "/": (None, True),
    "/proc": (frozenset({"proc"}), False),
    "/dev": (frozenset({"tmpfs"}), False),
    "/dev/pts": (frozenset({"devpts"}), False),
    SHM: (frozenset({"tmpfs"}), False),
    "/dev/mqueue": (frozenset({"mqueue"}), False),
    "/sys": (frozenset({"sysfs"}), True),
    "/etc/hostname": (None, True),
    "/etc/hosts": (None, True),
    "/etc/resolv.conf": (None, True),
    "/sbin/docker-init": (None, True),
    "/usr/sbin/docker-init": (None, True),
}
_CGROUPS = "/sys/fs/cgroup"
# Filesystems that show the kernel itself, which no folder of a root may be.
_KERNELS_OWN = frozenset(
    {
        *("proc", "sysfs", "devtmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "debugfs"),
        *("tracefs", "securityfs", "bpf", "configfs", "efivarfs", "nsfs", "binfmt_misc"),
    }
)
# Of the masked paths, those that every Linux has: the others are masked where they exist.
_ALWAYS_MASKED = (
    *("/proc/cmdline", "/proc/loadavg", "/proc/version", "/proc/vmstat", "/sys/bus", "/sys/class"),
    *("/sys/devices", "/sys/kernel", "/sys/module", "/proc/sys/fs/file-nr"),
    "/proc/sys/kernel/random/boot_id",
)
_ROUNDING_BYTES = 64 * 1024  # the largest page that any of our architectures has
_SIZE_UNITS = {"k": 1024, "m": 1024**2, "g": 1024**3}


class Proof(Told):
    """All that was compared for one container, and the facts it was compared with."""

    runtime: str
    checks: tuple[Check, ...]
    facts: Facts
    reported: int
    """How many wishes the engine's own word answers for."""

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that are not as they must be."""
        return tuple(check for check in self.checks if not check.ok)


def examine(
    spec: ContainerSpec,
    facts: Facts,
    directories: Mapping[str, tuple[int, int]] | None = None,
    *,
    reports: AbstractSet[Feature],
) -> Proof:
    """Compare facts with a spec, without judging: see :attr:`Proof.failed`."""
    gvisor = spec.runtime == "runsc"
    left = unreported(spec, reports)
    checks = (
        *_identity(spec, facts),
        *_kernel(facts, gvisor=gvisor),
        *_network(spec, facts),
        *_limits(spec, facts, gvisor=gvisor),
        *_mounts(spec, facts, gvisor=gvisor),
        *_folders(spec, facts, directories or {}, gvisor=gvisor),
        *_files(spec, facts, gvisor=gvisor),
    )
    decisions = tuple(_decision(name, spec, checks) for name in left)
    return Proof(
        runtime=spec.runtime,
        checks=(*checks, *decisions),
        facts=facts,
        reported=len(wishes(spec)) - len(left),
    )


def _decision(feature: Feature, spec: ContainerSpec, checks: Collection[Check]) -> Check:
    """Whether a wish that the engine does not report was decided by checks inside."""
    name = f"not reported.{feature}"
    if moot := TRAITS[feature].moot:
        return check(name, "nothing", moot, ok=True)
    by = deciding(feature, spec, [each.name for each in checks])
    return check(name, "measured inside", ", ".join(by) or "not measured", ok=bool(by))


def _identity(spec: ContainerSpec, facts: Facts) -> Iterator[Check]:
    yield equal("uid", spec.uid, facts.uid)
    yield equal("gid", spec.gid, facts.gid)
    yield none_but("groups", {str(spec.gid)}, map(str, facts.groups))
    yield equal("hostname", spec.hostname, facts.hostname)
    accepted = {*IMAGE_VARIABLES, *NETWORK_VARIABLES, *spec.environment}
    yield none_but("environment", accepted, facts.environment)


def _kernel(facts: Facts, *, gvisor: bool) -> Iterator[Check]:
    for name, mask in facts.capabilities:
        yield check(f"capabilities.{name}", "none", mask, ok=int(mask, 16) == 0)
    yield equal("no_new_privs", True, facts.no_new_privs)
    if not gvisor:
        yield equal("seccomp_mode", 2, facts.seccomp_mode)
    for call in FORBIDDEN_CALLS:
        answer = facts.forbidden.get(call, "not tried")
        refused = answer not in ("allowed", "not tried")
        if gvisor and call in SERVED_BY_GVISOR:
            yield check(f"forbidden.{call}", "refused or served by gVisor", answer, ok=True)
        else:
            yield check(f"forbidden.{call}", "refused", answer, ok=refused)


def _network(spec: ContainerSpec, facts: Facts) -> Iterator[Check]:
    yield equal("interfaces", "lo", ", ".join(facts.interfaces))
    yield none_but("routes", set(), facts.routes)
    yield none_but("resolvers", set(spec.dns), facts.resolvers)


def _limits(spec: ContainerSpec, facts: Facts, *, gvisor: bool) -> Iterator[Check]:
    for name, limit, found, rounding, played in (
        ("memory_limit", spec.memory_bytes, facts.memory_limit, _ROUNDING_BYTES, 2**63 - 1),
        ("pids_limit", spec.pids_limit, facts.pids_limit, 0, -1),
    ):
        # What gVisor's own control groups say where it plays some; they hold nobody to anything.
        if gvisor and (found is None or found == played):
            continue
        ok = found is not None and limit - rounding <= found <= limit
        yield check(name, str(limit), "not visible" if found is None else str(found), ok=ok)
    for name, rates, found in (
        ("disk_read", spec.disk_reads, facts.disk_read),
        ("disk_write", spec.disk_writes, facts.disk_write),
    ):
        if rates and not (gvisor and found is None):
            yield equal(name, min(rate.bytes_per_s for rate in rates), found)
    if not gvisor:  # it has a network stack of its own, in memory that counts as the session's
        for name, value in spec.sysctls.items():
            yield equal(name, value, facts.sysctls.get(name))
    for ulimit in spec.ulimits:
        yield equal(ulimit.name, ulimit.hard, getattr(facts, ulimit.name, "not measured"))


def _mounts(spec: ContainerSpec, facts: Facts, *, gvisor: bool) -> Iterator[Check]:
    yield equal("root_read_only", True, facts.root_read_only)
    times = Counter(mount.target for mount in facts.mounts)
    twice = sorted(target for target, number in times.items() if number > 1)
    yield none_but("mounts.stacked", set(), twice)
    wanted = {mount.target for mount in (*spec.tmpfs, *spec.mounts)}
    unexpected = [
        f"{mount.target} ({mount.fstype})"
        for mount in facts.mounts
        if mount.target not in wanted and not _is_engines(spec, mount, gvisor=gvisor)
    ]
    yield none_but("mounts.unexpected", set(), unexpected)
    shm = Tmpfs(target=SHM, size_bytes=spec.shm_bytes, inodes=0, mode=0o1777, uid=0, gid=0)
    for tmpfs in (*spec.tmpfs, shm):
        mount = next((each for each in facts.mounts if each.target == tmpfs.target), None)
        yield from _tmpfs(tmpfs, mount, gvisor=gvisor)
    if gvisor:
        return
    hidden = {mount.target for mount in facts.mounts} & set(spec.masked_paths)
    bare = [path for path in _ALWAYS_MASKED if path in spec.masked_paths and path not in hidden]
    yield none_but("mounts.unmasked", set(), bare)
    guarded = any(each.target == "/proc/sys" and "ro" in each.options for each in facts.mounts)
    yield check("mounts./proc/sys", "read-only", "read-only" if guarded else "writable", ok=guarded)


def _folders(
    spec: ContainerSpec, facts: Facts, directories: Mapping[str, tuple[int, int]], *, gvisor: bool
) -> Iterator[Check]:
    """The folders of the host: mounted as they must be, and those that are meant."""
    table = {mount.target: mount for mount in facts.mounts}
    for folder in spec.mounts:
        name = f"mounts.{folder.target}"
        yield _folder_options(name, folder, table.get(folder.target), gvisor=gvisor)
        place = facts.places.get(folder.target)
        written = place is None or place.write == "allowed"
        if folder.read_only:
            said = place.write if place else "not tried"
            yield check(f"{name}.write", "refused", said, ok=not written)
        if folder.target in directories and not gvisor:
            found = place.steps[-1][4:] if place and place.steps else None
            yield equal(f"{name}.directory", directories[folder.target], found)


def _folder_options(
    name: str, folder: Mount, mount: MeasuredMount | None, *, gvisor: bool
) -> Check:
    expected = [] if gvisor else ["ro" if folder.read_only else "rw", "nosuid", "nodev"]
    if mount is None:
        return check(name, " ".join(expected) or "mounted", "not mounted", ok=False)
    ok = mount.fstype not in _KERNELS_OWN and not [w for w in expected if w not in mount.options]
    found = " ".join((mount.fstype, *mount.options))
    return check(name, " ".join(("a folder", *expected)), found, ok=ok)


def _files(spec: ContainerSpec, facts: Facts, *, gvisor: bool) -> Iterator[Check]:
    """What could really be written, and the devices that are there."""
    writable = {SHM, "/dev/mqueue", *(tmpfs.target for tmpfs in spec.tmpfs)}
    yield none_but("writable", writable, facts.writable)
    devices = _DEVICES | _GVISOR_DEVICES if gvisor else _DEVICES
    yield none_but("devices", set(devices), facts.devices)


def _is_engines(spec: ContainerSpec, mount: MeasuredMount, *, gvisor: bool) -> bool:
    """Whether an engine makes this mount in every container with such a spec."""
    readonly = "ro" in mount.options
    if mount.target in spec.masked_paths:
        # An empty read-only directory, or /dev/null over a file.
        return mount.fstype in ("tmpfs", "devtmpfs")
    if mount.target in spec.readonly_paths:
        return mount.fstype == "proc" and readonly
    if mount.target == _CGROUPS:
        return mount.fstype in ("tmpfs", "cgroup2", "cgroup")
    if mount.target.startswith(f"{_CGROUPS}/"):
        return mount.fstype == "cgroup" and (readonly or gvisor)
    if mount.target not in _ENGINE_MOUNTS:
        return False
    fstypes, must_be_readonly = _ENGINE_MOUNTS[mount.target]
    if gvisor:
        fstypes = None
    return (fstypes is None or mount.fstype in fstypes) and (readonly or not must_be_readonly)


def _tmpfs(tmpfs: Tmpfs, mount: MeasuredMount | None, *, gvisor: bool) -> Iterator[Check]:
    found = [mount.fstype, *map(_in_plain_bytes, mount.options)] if mount else ["not mounted"]
    expected = {"": ["tmpfs", f"size={tmpfs.size_bytes}"]}
    if not gvisor:
        expected[""] += ["nosuid", "nodev"]
        if tmpfs.inodes:
            expected[".inodes"] = [f"nr_inodes={tmpfs.inodes}"]
        if tmpfs.noexec:
            expected[".noexec"] = ["noexec"]
    for part, words in expected.items():
        ok = set(words) <= set(found)
        yield check(f"mounts.{tmpfs.target}{part}", " ".join(words), " ".join(found), ok=ok)


def _in_plain_bytes(option: str) -> str:
    """``size=8k`` as ``size=8192``, ``nr_inodes=16k`` as ``nr_inodes=16384``."""
    name, _, value = option.partition("=")
    if name in ("size", "nr_inodes") and value[:-1].isdigit() and value[-1:] in _SIZE_UNITS:
        return f"{name}={int(value[:-1]) * _SIZE_UNITS[value[-1]]}"
    return option
