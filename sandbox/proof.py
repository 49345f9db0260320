"""The proof that a container is what its spec says, from what the supervisor measured inside.

What can be tried is tried: forbidden calls are made, files are created where nothing may be
written. Limits of memory and of processes are read from the control group instead, for trying them
would cost the session what it is to have.

The supervisor is not trusted with anything, so this is no protection from it. It catches the other
case: an engine, a runtime or a host that silently applied less than it was asked for. Every session
is proved before anyone gets it; a single wrong check and the container is removed.

Under ``runsc`` the kernel inside is gVisor's, and four things are its own affair: it filters no
calls by our profile unless told to, so calls that it serves itself inside the sandbox may succeed
(``SERVED_BY_GVISOR``) and devices that it plays itself are there (``_GVISOR_DEVICES``); it has no
files to mask, since its /proc and /sys show nothing of the host;
it shows no control groups; and of a tmpfs it does not tell the inodes, nor nosuid and nodev, which
are moot for a process that can gain no privileges and make no devices; and a folder of the host has
there neither its own device and inode nor its options. The engine's inspection
answers for those there. Everything else is the same.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import anyio
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError

from sandbox.errors import PolicyNotEnforced
from sandbox.link import Link
from sandbox.spec import NETWORK_VARIABLES, SHM, ContainerSpec, Tmpfs, mismatches
from sandbox.spec import Mount as SpecMount

TIMEOUT_S = 10.0
MAX_SHOWN = 300
"""Characters of what was expected and found."""

FORBIDDEN_CALLS = (
    *("bpf", "chroot", "clone3", "clone_newuser", "io_uring_setup", "keyctl", "mknod", "mount"),
    *("perf_event_open", "ptrace", "setns", "setuid", "socket_alg", "socket_netfilter"),
    *("socket_packet", "socket_raw", "socket_vsock", "unshare", "userfaultfd"),
)
SERVED_BY_GVISOR = frozenset(
    {"clone3", "clone_newuser", "io_uring_setup", "keyctl", "mknod", "ptrace", "unshare"}
)

IMAGE_VARIABLES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TERM", "HOSTNAME"),
        *("PYTHONUSERBASE", "PYTHONDONTWRITEBYTECODE", "PIP_NO_CACHE_DIR"),
        *("PIP_DISABLE_PIP_VERSION_CHECK", "IPYTHONDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME"),
    }
)
"""What the images set, and HOSTNAME, which engines do."""

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
    *("/sys/devices", "/sys/kernel", "/sys/module"),
)
_ROUNDING_BYTES = 64 * 1024  # the largest page that any of our architectures has
_SIZE_UNITS = {"k": 1024, "m": 1024**2, "g": 1024**3}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


Name = Annotated[str, Field(max_length=4096)]


class Mount(_Frozen):
    """A line of the container's mount table: ``options`` are its own and its filesystem's."""

    target: Name
    fstype: Name
    options: Annotated[tuple[Name, ...], Field(max_length=256)]


class Place(_Frozen):
    """A directory that was looked at: name, mode, uid, gid, device and inode of each part of its
    path, and what became of the try to make a file in it (an errno's name, or ``allowed``)."""

    steps: Annotated[
        tuple[tuple[Name, StrictInt, StrictInt, StrictInt, StrictInt, StrictInt], ...],
        Field(max_length=128),
    ]
    write: Name


Mask = Annotated[str, Field(pattern=r"\A[0-9a-f]{1,16}\z")]


class Capabilities(_Frozen):
    """The five sets of capabilities, as hexadecimal masks."""

    effective: Mask
    permitted: Mask
    bounding: Mask
    inheritable: Mask
    ambient: Mask


class Facts(_Frozen):
    """What the supervisor measured, see ``docs/link.md``. None: not visible from inside."""

    uid: StrictInt
    gid: StrictInt
    groups: Annotated[tuple[StrictInt, ...], Field(max_length=1024)]
    capabilities: Capabilities
    no_new_privs: StrictBool
    seccomp_mode: StrictInt
    interfaces: Annotated[tuple[Name, ...], Field(max_length=1024)]
    routes: Annotated[tuple[Name, ...], Field(max_length=1024)]
    resolvers: Annotated[tuple[Name, ...], Field(max_length=1024)]
    root_read_only: StrictBool
    writable: Annotated[tuple[Name, ...], Field(max_length=1024)]
    devices: Annotated[tuple[Name, ...], Field(max_length=1024)]
    mounts: Annotated[tuple[Mount, ...], Field(max_length=1024)]
    places: Annotated[dict[Name, Place], Field(max_length=64)]
    memory_limit: StrictInt | None
    pids_limit: StrictInt | None
    nofile: StrictInt
    core: StrictInt
    fsize: StrictInt
    memlock: StrictInt
    msgqueue: StrictInt
    forbidden: dict[Name, Name]
    hostname: Name
    environment: Annotated[tuple[Name, ...], Field(max_length=4096)]


class Check(_Frozen):
    """One comparison: what must be, what was found, and whether that is enough."""

    name: str
    expected: str
    found: str
    ok: bool


class Proof(_Frozen):
    """All that was compared for one container, and the facts it was compared with."""

    runtime: str
    checks: tuple[Check, ...]
    facts: Facts

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that are not as they must be."""
        return tuple(check for check in self.checks if not check.ok)


class NotProved(PolicyNotEnforced):
    """A proof failed.

    Args:
        message: What is weaker than the spec.
        checks: All that were made, those that hold too.
        is_measured: Whether they were made inside; else they are the engine's inspection.
        remedy: What to do about it.
    """

    def __init__(
        self, message: str, checks: tuple[Check, ...], *, is_measured: bool, remedy: str
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.checks = checks
        self.is_measured = is_measured


async def prove(
    link: Link, spec: ContainerSpec, directories: Mapping[str, tuple[int, int]] | None = None
) -> Proof:
    """Have the supervisor measure its container, and compare that with the spec.

    Args:
        link: To the supervisor.
        spec: What its container must be.
        directories: The device and inode that each mount must be, by its target; those that are
            not known are not compared.

    Raises:
        PolicyNotEnforced: Something is weaker than the spec (:class:`NotProved`), or was not
            measured.
        LinkLost: The link ended.
    """
    proof = await measure(link, spec, directories)
    if proof.failed:
        said = "; ".join(
            f"{check.name} must be {check.expected}, is {check.found}" for check in proof.failed
        )
        raise NotProved(
            f"The engine did not apply the policy: {said}.",
            proof.checks,
            is_measured=True,
            remedy="`sandbox doctor` says what this engine can do.",
        )
    return proof


async def measure(
    link: Link, spec: ContainerSpec, directories: Mapping[str, tuple[int, int]] | None = None
) -> Proof:
    """The same without judging: see :attr:`Proof.failed`.

    Raises:
        PolicyNotEnforced: It was not measured.
        LinkLost: The link ended.
    """
    try:
        with anyio.fail_after(TIMEOUT_S):
            places = [mount.target for mount in spec.mounts]
            answer = await link.call("probe", **({"places": places} if places else {}))
        return examine(spec, Facts.model_validate(answer), directories or {})
    except TimeoutError as exc:
        raise PolicyNotEnforced(
            f"The sandbox did not answer the probe within {TIMEOUT_S:g} s."
        ) from exc
    except ValidationError as exc:
        wrong = exc.errors()[0]
        place = ".".join(str(part) for part in wrong["loc"])
        raise PolicyNotEnforced(
            f"The sandbox's facts do not tell enough: {place}: {wrong['msg']}."
        ) from exc


def inspected(spec: ContainerSpec, facts: Mapping[str, Any] | None) -> tuple[Check, ...]:
    """Compare what the engine says that it applied with a spec, fact by fact.

    Args:
        spec: What was asked for.
        facts: What an inspection found, in the words of ``ContainerSpec.facts``.
    """
    wrong = dict(each.split(": ", 1) for each in mismatches(spec, facts))
    asked = spec.facts()
    return tuple(
        _check(
            name,
            _shown(asked.get(name, "nothing of that kind")),
            wrong.get(name, "the same"),
            ok=name not in wrong,
        )
        for name in (*asked, *(wrong.keys() - asked.keys()))
    )


def examine(
    spec: ContainerSpec, facts: Facts, directories: Mapping[str, tuple[int, int]] | None = None
) -> Proof:
    """Compare facts with a spec, without judging: see :attr:`Proof.failed`."""
    gvisor = spec.runtime == "runsc"
    checks = (
        *_identity(spec, facts),
        *_kernel(facts, gvisor=gvisor),
        *_network(spec, facts),
        *_limits(spec, facts, gvisor=gvisor),
        *_mounts(spec, facts, gvisor=gvisor),
        *_folders(spec, facts, directories or {}, gvisor=gvisor),
        *_files(spec, facts, gvisor=gvisor),
    )
    return Proof(runtime=spec.runtime, checks=checks, facts=facts)


def _identity(spec: ContainerSpec, facts: Facts) -> Iterator[Check]:
    yield _equal("uid", spec.uid, facts.uid)
    yield _equal("gid", spec.gid, facts.gid)
    yield _none_but("groups", {str(spec.gid)}, map(str, facts.groups))
    yield _equal("hostname", spec.hostname, facts.hostname)
    accepted = {*IMAGE_VARIABLES, *NETWORK_VARIABLES, *spec.environment}
    yield _none_but("environment", accepted, facts.environment)


def _kernel(facts: Facts, *, gvisor: bool) -> Iterator[Check]:
    for name, mask in facts.capabilities:
        yield _check(f"capabilities.{name}", "none", mask, ok=int(mask, 16) == 0)
    yield _equal("no_new_privs", True, facts.no_new_privs)
    if not gvisor:
        yield _equal("seccomp_mode", 2, facts.seccomp_mode)
    for call in FORBIDDEN_CALLS:
        answer = facts.forbidden.get(call, "not tried")
        refused = answer not in ("allowed", "not tried")
        if gvisor and call in SERVED_BY_GVISOR:
            yield _check(f"forbidden.{call}", "refused or served by gVisor", answer, ok=True)
        else:
            yield _check(f"forbidden.{call}", "refused", answer, ok=refused)


def _network(spec: ContainerSpec, facts: Facts) -> Iterator[Check]:
    yield _equal("interfaces", "lo", ", ".join(facts.interfaces))
    yield _none_but("routes", set(), facts.routes)
    yield _none_but("resolvers", set(spec.dns), facts.resolvers)


def _limits(spec: ContainerSpec, facts: Facts, *, gvisor: bool) -> Iterator[Check]:
    for name, limit, found, rounding in (
        ("memory_limit", spec.memory_bytes, facts.memory_limit, _ROUNDING_BYTES),
        ("pids_limit", spec.pids_limit, facts.pids_limit, 0),
    ):
        if gvisor and found is None:
            continue
        ok = found is not None and limit - rounding <= found <= limit
        yield _check(name, str(limit), "not visible" if found is None else str(found), ok=ok)
    for ulimit in spec.ulimits:
        yield _equal(ulimit.name, ulimit.hard, getattr(facts, ulimit.name, "not measured"))


def _mounts(spec: ContainerSpec, facts: Facts, *, gvisor: bool) -> Iterator[Check]:
    yield _equal("root_read_only", True, facts.root_read_only)
    times = Counter(mount.target for mount in facts.mounts)
    twice = sorted(target for target, number in times.items() if number > 1)
    yield _none_but("mounts.stacked", set(), twice)
    wanted = {mount.target for mount in (*spec.tmpfs, *spec.mounts)}
    unexpected = [
        f"{mount.target} ({mount.fstype})"
        for mount in facts.mounts
        if mount.target not in wanted and not _is_engines(spec, mount, gvisor=gvisor)
    ]
    yield _none_but("mounts.unexpected", set(), unexpected)
    shm = Tmpfs(
        target=SHM,
        size_bytes=spec.shm_bytes,
        inodes=0,
        mode=0o1777,
        uid=0,
        gid=0,
    )
    for tmpfs in (*spec.tmpfs, shm):
        mount = next((each for each in facts.mounts if each.target == tmpfs.target), None)
        yield _tmpfs(tmpfs, mount, gvisor=gvisor)
    if gvisor:
        return
    hidden = {mount.target for mount in facts.mounts} & set(spec.masked_paths)
    bare = [path for path in _ALWAYS_MASKED if path in spec.masked_paths and path not in hidden]
    yield _none_but("mounts.unmasked", set(), bare)
    yield _check(
        "mounts./proc/sys",
        "read-only",
        "read-only" if any(_is_proc_sys(mount) for mount in facts.mounts) else "writable",
        ok=any(_is_proc_sys(mount) for mount in facts.mounts),
    )


def _folders(
    spec: ContainerSpec,
    facts: Facts,
    directories: Mapping[str, tuple[int, int]],
    *,
    gvisor: bool,
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
            yield _check(f"{name}.write", "refused", said, ok=not written)
        if folder.target in directories and not gvisor:
            found = place.steps[-1][4:] if place and place.steps else None
            yield _equal(f"{name}.directory", directories[folder.target], found)


def _folder_options(name: str, folder: SpecMount, mount: Mount | None, *, gvisor: bool) -> Check:
    expected = [] if gvisor else ["ro" if folder.read_only else "rw", "nosuid", "nodev"]
    if mount is None:
        return _check(name, " ".join(expected) or "mounted", "not mounted", ok=False)
    ok = mount.fstype not in _KERNELS_OWN and not [w for w in expected if w not in mount.options]
    found = " ".join((mount.fstype, *mount.options))
    return _check(name, " ".join(("a folder", *expected)), found, ok=ok)


def _files(spec: ContainerSpec, facts: Facts, *, gvisor: bool) -> Iterator[Check]:
    """What could really be written, and the devices that are there."""
    writable = {SHM, "/dev/mqueue", *(tmpfs.target for tmpfs in spec.tmpfs)}
    yield _none_but("writable", writable, facts.writable)
    devices = _DEVICES | _GVISOR_DEVICES if gvisor else _DEVICES
    yield _none_but("devices", set(devices), facts.devices)


def _is_proc_sys(mount: Mount) -> bool:
    return mount.target == "/proc/sys" and "ro" in mount.options


def _is_engines(spec: ContainerSpec, mount: Mount, *, gvisor: bool) -> bool:
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
        return mount.fstype == "cgroup" and readonly
    if mount.target not in _ENGINE_MOUNTS:
        return False
    fstypes, must_be_readonly = _ENGINE_MOUNTS[mount.target]
    if gvisor:
        fstypes = None
    return (fstypes is None or mount.fstype in fstypes) and (readonly or not must_be_readonly)


def _tmpfs(tmpfs: Tmpfs, mount: Mount | None, *, gvisor: bool) -> Check:
    name = f"mounts.{tmpfs.target}"
    expected = ["tmpfs", f"size={tmpfs.size_bytes}"]
    if not gvisor:
        expected += ["nosuid", "nodev", *(["noexec"] if tmpfs.noexec else [])]
        expected += [*([f"nr_inodes={tmpfs.inodes}"] if tmpfs.inodes else [])]
    if mount is None:
        return _check(name, " ".join(expected), "not mounted", ok=False)
    found = [mount.fstype, *map(_in_plain_bytes, mount.options)]
    return _check(
        name, " ".join(expected), " ".join(found), ok=not [w for w in expected if w not in found]
    )


def _in_plain_bytes(option: str) -> str:
    """``size=8k`` as ``size=8192``, ``nr_inodes=16k`` as ``nr_inodes=16384``."""
    name, _, value = option.partition("=")
    if name in ("size", "nr_inodes") and value[:-1].isdigit() and value[-1:] in _SIZE_UNITS:
        return f"{name}={int(value[:-1]) * _SIZE_UNITS[value[-1]]}"
    return option


def _equal(name: str, expected: Any, found: Any) -> Check:
    return _check(name, str(expected), str(found), ok=expected == found)


def _none_but(name: str, accepted: set[str], found: Any) -> Check:
    extra = sorted(set(found) - accepted)
    return _check(name, "no other", ", ".join(extra) or "no other", ok=not extra)


def _check(name: str, expected: str, found: str, *, ok: bool) -> Check:
    return Check(name=name, expected=_bounded(expected), found=_bounded(found), ok=ok)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
