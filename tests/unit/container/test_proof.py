from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from sandbox import resources
from sandbox.container import proof as proofs
from sandbox.container.compiler import SYSCTLS, compile_spec
from sandbox.container.engine import EngineInfo
from sandbox.container.examination import FORBIDDEN_CALLS, Proof, examine
from sandbox.container.features import ALL, Feature
from sandbox.container.identity import SandboxIdentity
from sandbox.container.measurement import Facts
from sandbox.container.proof import prove
from sandbox.container.spec import ContainerSpec, Mount
from sandbox.container.variables import IMAGE_VARIABLES
from sandbox.errors import PolicyNotEnforced
from sandbox.policy import load, seccomp_profile

Raw = dict[str, Any]

RW = "rw nosuid nodev noexec relatime"
RO = "ro nosuid nodev noexec relatime"


ENGINE = EngineInfo(
    *("e", "1", "1", 1, ("runc", "runsc"), True, "x86_64", 8 * 1024**3, 2),
    disk="/dev/sda",
    enforces=ALL,
    reports=ALL - {Feature.ENVIRONMENT},
)


def spec_for(runtime: str = "runc") -> ContainerSpec:
    return compile_spec(
        load().get(),
        SandboxIdentity(
            sandbox_id="sb-0123456789abcdef0123456789abcdef", owner="o", uid=234567, created_at=1.0
        ),
        image="i",
        engine=ENGINE,
        seccomp=seccomp_profile(),
        runtime_override=runtime,
    )


def mount(target: str, fstype: str, options: str) -> Raw:
    return {"target": target, "fstype": fstype, "options": options.split()}


def as_measured(spec: ContainerSpec) -> Raw:
    """What a container of the default policy measures under runc on an engine with cgroups v1."""
    uid = spec.uid
    masked_files = [p for p in spec.masked_paths if p in ("/proc/cmdline", "/proc/keys")]
    masked_files += ["/proc/loadavg", "/proc/version", "/proc/vmstat", "/proc/kallsyms"]
    masked_files += ["/proc/sys/fs/file-nr", "/proc/sys/kernel/random/boot_id"]
    masked_directories = ["/proc/acpi", "/sys/bus", "/sys/class", "/sys/devices", "/sys/kernel"]
    masked_directories += ["/sys/module", "/sys/firmware", "/sys/fs/ext4"]
    return {
        "uid": uid,
        "gid": uid,
        "groups": [uid],
        "capabilities": dict.fromkeys(
            ("effective", "permitted", "bounding", "inheritable", "ambient"), "0" * 16
        ),
        "no_new_privs": True,
        "seccomp_mode": 2,
        "interfaces": ["lo"],
        "routes": [],
        "resolvers": ["127.0.0.1"],
        "root_read_only": True,
        "places": {},
        "writable": ["/dev/shm", "/tmp", "/workspace"],
        "devices": ["/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom"],
        "mounts": [
            mount("/", "overlay", "ro relatime rw lowerdir=/a upperdir=/b workdir=/c"),
            mount("/proc", "proc", f"{RW} rw"),
            mount("/dev", "tmpfs", "rw nosuid rw size=65536k mode=755"),
            mount("/dev/pts", "devpts", "rw nosuid noexec rw gid=5 mode=620 ptmxmode=666"),
            mount("/dev/mqueue", "mqueue", f"{RW} rw"),
            mount("/dev/shm", "tmpfs", f"{RW} rw size=65536k"),
            mount("/sys", "sysfs", f"{RO} ro"),
            mount("/sys/fs/cgroup", "tmpfs", f"{RW} rw mode=755"),
            mount("/sys/fs/cgroup/memory", "cgroup", f"{RO} rw memory"),
            mount("/sys/fs/cgroup/pids", "cgroup", f"{RO} rw pids"),
            mount("/usr/sbin/docker-init", "ext4", "ro relatime rw discard"),
            mount("/etc/resolv.conf", "ext4", "ro relatime rw"),
            mount("/etc/hostname", "ext4", "ro relatime rw"),
            mount("/etc/hosts", "ext4", "ro relatime rw"),
            mount(
                "/tmp",
                "tmpfs",
                f"rw nosuid nodev relatime rw size=131072k nr_inodes=16384 mode=700 uid={uid}",
            ),
            mount(
                "/workspace",
                "tmpfs",
                f"rw nosuid nodev relatime rw size=524288k nr_inodes=65536 mode=700 uid={uid}",
            ),
            mount("/proc/sys", "proc", f"{RO} rw"),
            *(mount(path, "tmpfs", "rw nosuid rw size=65536k mode=755") for path in masked_files),
            *(mount(path, "tmpfs", "ro relatime ro") for path in masked_directories),
        ],
        "memory_limit": spec.memory_bytes,
        "pids_limit": spec.pids_limit,
        "disk_read": 64 * 1024**2,
        "disk_write": 64 * 1024**2,
        "sysctls": dict(SYSCTLS),
        "nproc": -1,
        "nofile": 1024,
        "core": 0,
        "fsize": 512 * 1024**2,
        "memlock": 64 * 1024,
        "msgqueue": 0,
        "forbidden": {**dict.fromkeys(FORBIDDEN_CALLS, "EPERM"), "clone3": "ENOSYS"},
        "hostname": "sandbox",
        "environment": [*sorted(IMAGE_VARIABLES), "OMP_NUM_THREADS"],
    }


def as_measured_by_gvisor(spec: ContainerSpec) -> Raw:
    """The same under runsc: its own kernel answers, and there is less to see."""
    facts = as_measured(spec)
    facts["seccomp_mode"] = 0
    facts["memory_limit"] = facts["pids_limit"] = None
    facts["disk_read"] = facts["disk_write"] = None
    facts["sysctls"] = dict.fromkeys(SYSCTLS)
    facts["nproc"] = 256
    facts["forbidden"].update(unshare="allowed", ptrace="allowed", io_uring_setup="allowed")
    facts["forbidden"].update(keyctl="EACCES", socket_vsock="EAFNOSUPPORT")
    facts["forbidden"].update(mknod="allowed", clone_newuser="allowed", setns="ENOTSUP")
    facts["devices"] += ["/dev/fuse", "/dev/net/tun"]
    shown = ("/proc", "/dev", "/dev/pts", "/dev/shm", "/sys")
    facts["mounts"] = [
        mount("/", "9p", "ro"),
        *(each for each in facts["mounts"] if each["target"] in shown),
        mount("/tmp", "tmpfs", "rw size=134217728 mode=0700"),
        mount("/workspace", "tmpfs", "rw size=536870912 mode=0700"),
    ]
    return facts


def as_measured_by_newer_gvisor(spec: ContainerSpec) -> Raw:
    """The same of one that plays control groups without limits, and namespaces to enter."""
    facts = as_measured_by_gvisor(spec)
    facts["memory_limit"], facts["pids_limit"] = 2**63 - 1, -1
    facts["forbidden"].update(setns="allowed")
    facts["mounts"] += [
        mount("/sys/fs/cgroup", "tmpfs", "ro noexec"),
        *(mount(f"/sys/fs/cgroup/{name}", "cgroup", f"rw {name}") for name in ("memory", "pids")),
    ]
    return facts


def failed(spec: ContainerSpec, facts: Raw) -> set[str]:
    return {
        check.name
        for check in examine(spec, Facts.model_validate(facts), reports=ENGINE.reports).failed
    }


class Prober:
    """The one call of a link that a proof makes."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def call(self, op: str, **_: Any) -> Any:
        assert op == "probe"
        if self._answer is None:
            await anyio.sleep_forever()
        return self._answer


def test_a_container_as_it_must_be_passes_every_check() -> None:
    spec = spec_for()
    proof = examine(spec, Facts.model_validate(as_measured(spec)), reports=ENGINE.reports)
    assert proof.failed == ()
    assert len(proof.checks) > 25
    assert proof.runtime == "runc"


def test_a_container_under_gvisor_passes_with_what_is_different_there() -> None:
    spec = spec_for("runsc")
    assert failed(spec, as_measured_by_gvisor(spec)) == set()


def test_a_container_under_a_newer_gvisor_passes_under_it_and_not_under_runc() -> None:
    spec = spec_for("runsc")
    assert failed(spec, as_measured_by_newer_gvisor(spec)) == set()
    assert failed(spec_for(), as_measured_by_newer_gvisor(spec)) >= {
        *("memory_limit", "pids_limit", "forbidden.setns", "mounts.unexpected"),
    }


def test_what_is_accepted_under_gvisor_is_not_accepted_under_runc() -> None:
    spec = spec_for()
    assert failed(spec, as_measured_by_gvisor(spec)) >= {
        *("seccomp_mode", "memory_limit", "pids_limit", "forbidden.unshare", "forbidden.ptrace"),
        *("mounts.unmasked", "mounts./proc/sys", "devices", "forbidden.mknod"),
    }


def put(name: str, value: Any) -> Callable[[Raw], None]:
    def change(facts: Raw) -> None:
        facts[name] = value

    return change


def put_in(name: str, key: str, value: Any) -> Callable[[Raw], None]:
    def change(facts: Raw) -> None:
        facts[name][key] = value

    return change


def drop_in(name: str, key: str) -> Callable[[Raw], None]:
    def change(facts: Raw) -> None:
        del facts[name][key]

    return change


def add_mount(target: str, fstype: str, options: str) -> Callable[[Raw], None]:
    def change(facts: Raw) -> None:
        facts["mounts"].append(mount(target, fstype, options))

    return change


def unmount(target: str) -> Callable[[Raw], None]:
    def change(facts: Raw) -> None:
        facts["mounts"] = [each for each in facts["mounts"] if each["target"] != target]

    return change


def remount(target: str, old: str, new: str) -> Callable[[Raw], None]:
    """Change one option, or the kind, of a mount."""

    def change(facts: Raw) -> None:
        (found,) = (each for each in facts["mounts"] if each["target"] == target)
        if old == found["fstype"]:
            found["fstype"] = new
            return
        assert old in found["options"]
        found["options"] = [new if option == old else option for option in found["options"]]
        found["options"] = [option for option in found["options"] if option]

    return change


WEAKENINGS: list[tuple[Callable[[Raw], None], str]] = [
    (put("uid", 0), "uid"),
    (put("uid", 1000), "uid"),
    (put("gid", 0), "gid"),
    (put("groups", [0]), "groups"),
    (put("groups", [234567, 999]), "groups"),
    (put_in("capabilities", "effective", "0000000000000400"), "capabilities.effective"),
    (put_in("capabilities", "permitted", "0000000000000400"), "capabilities.permitted"),
    (put_in("capabilities", "bounding", "00000000a80425fb"), "capabilities.bounding"),
    (put_in("capabilities", "inheritable", "1"), "capabilities.inheritable"),
    (put_in("capabilities", "ambient", "8000000000000000"), "capabilities.ambient"),
    (put("no_new_privs", False), "no_new_privs"),
    (put("seccomp_mode", 0), "seccomp_mode"),
    (put("seccomp_mode", 1), "seccomp_mode"),
    (put("interfaces", ["lo", "eth0"]), "interfaces"),
    (put("interfaces", ["eth0"]), "interfaces"),
    (put("interfaces", []), "interfaces"),
    (put("routes", ["default via 172.17.0.1 dev eth0"]), "routes"),
    (put("root_read_only", False), "root_read_only"),
    (put("memory_limit", -1), "memory_limit"),
    (put("memory_limit", None), "memory_limit"),
    (put("memory_limit", 1024**3 + 1), "memory_limit"),
    (put("memory_limit", 512 * 1024**2), "memory_limit"),
    (put("disk_read", -1), "disk_read"),
    (put("disk_read", 65 * 1024**2), "disk_read"),
    (put("disk_write", None), "disk_write"),
    (put_in("sysctls", "net.ipv4.tcp_rmem", "4096 131072 33554432"), "net.ipv4.tcp_rmem"),
    (put_in("sysctls", "net.ipv4.tcp_wmem", None), "net.ipv4.tcp_wmem"),
    (put("pids_limit", -1), "pids_limit"),
    (put("pids_limit", None), "pids_limit"),
    (put("pids_limit", 257), "pids_limit"),
    (put("nofile", 1048576), "nofile"),
    (put("nofile", -1), "nofile"),
    (put("core", -1), "core"),
    (put("fsize", -1), "fsize"),
    (put("memlock", -1), "memlock"),
    (put("msgqueue", 819200), "msgqueue"),
    (put("resolvers", ["127.0.0.1", "192.0.2.53"]), "resolvers"),
    (put("writable", ["/", "/tmp"]), "writable"),
    (put("writable", ["/dev/shm", "/etc"]), "writable"),
    (put("writable", ["/sys/fs/cgroup/pids"]), "writable"),
    (put("devices", ["/dev/null", "/dev/kmsg"]), "devices"),
    *((put_in("forbidden", call, "allowed"), f"forbidden.{call}") for call in FORBIDDEN_CALLS),
    *((drop_in("forbidden", call), f"forbidden.{call}") for call in FORBIDDEN_CALLS),
    (put("hostname", "build-host-7"), "hostname"),
    (put("environment", ["PATH", "AWS_SECRET_ACCESS_KEY"]), "environment"),
    (add_mount("/host", "ext4", "rw relatime"), "mounts.unexpected"),
    (add_mount("/var/run/docker.sock", "tmpfs", "rw"), "mounts.unexpected"),
    (add_mount("/workspace/data", "ext4", "ro"), "mounts.unexpected"),
    (add_mount("/etc/ssl", "ext4", "ro"), "mounts.unexpected"),
    (add_mount("/dev/sda", "devtmpfs", "rw"), "mounts.unexpected"),
    (add_mount("/sys/fs/cgroup/cpu", "cgroup", f"{RW} rw cpu"), "mounts.unexpected"),
    (add_mount("/sys/fs/cgroup/../../x", "ext4", "ro"), "mounts.unexpected"),
    (add_mount("/sys/fs/bpf/x", "bpf", "ro"), "mounts.unexpected"),
    (add_mount("/workspace", "ext4", "rw nosuid nodev"), "mounts.stacked"),
    (add_mount("/etc/hosts", "ext4", "ro relatime rw"), "mounts.stacked"),
    (add_mount("/proc/kcore", "proc", "rw"), "mounts.unexpected"),
    (remount("/", "ro", ""), "mounts.unexpected"),
    (remount("/sys", "sysfs", "tmpfs"), "mounts.unexpected"),
    (put("mounts", []), "mounts./workspace"),
    (remount("/dev", "tmpfs", "devtmpfs"), "mounts.unexpected"),
    (remount("/proc/sys", "ro", "rw"), "mounts./proc/sys"),
    (remount("/etc/hosts", "ro", "rw"), "mounts.unexpected"),
    (remount("/usr/sbin/docker-init", "ro", "rw"), "mounts.unexpected"),
    (remount("/sys/fs/cgroup/memory", "ro", "rw"), "mounts.unexpected"),
    (unmount("/proc/sys"), "mounts./proc/sys"),
    (unmount("/proc/cmdline"), "mounts.unmasked"),
    (unmount("/sys/kernel"), "mounts.unmasked"),
    (unmount("/workspace"), "mounts./workspace"),
    (unmount("/tmp"), "mounts./tmp"),
    (unmount("/dev/shm"), "mounts./dev/shm"),
    (remount("/workspace", "tmpfs", "ext4"), "mounts./workspace"),
    (remount("/workspace", "nosuid", "suid"), "mounts./workspace"),
    (remount("/workspace", "nodev", "dev"), "mounts./workspace"),
    (remount("/workspace", "size=524288k", "size=12353276k"), "mounts./workspace"),
    (remount("/workspace", "size=524288k", ""), "mounts./workspace"),
    (remount("/workspace", "nr_inodes=65536", ""), "mounts./workspace.inodes"),
    (remount("/tmp", "nodev", ""), "mounts./tmp"),
    (remount("/tmp", "nr_inodes=16384", "nr_inodes=0"), "mounts./tmp.inodes"),
    (remount("/dev/shm", "size=65536k", "size=12g"), "mounts./dev/shm"),
]


@pytest.mark.parametrize(("weaken", "name"), WEAKENINGS)
def test_each_single_weakening_is_caught(weaken: Callable[[Raw], None], name: str) -> None:
    spec = spec_for()
    facts = as_measured(spec)
    weaken(facts)
    assert name in failed(spec, facts)


GVISOR_WEAKENINGS = [
    (weaken, name)
    for weaken, name in WEAKENINGS
    if name.partition(".")[0]
    in (
        *("uid", "gid", "groups", "capabilities", "no_new_privs", "interfaces", "routes"),
        *("root_read_only", "nofile", "core", "fsize", "hostname", "environment"),
        *("memlock", "msgqueue", "resolvers", "writable", "devices"),
    )
] + [
    (put_in("forbidden", "mount", "allowed"), "forbidden.mount"),
    (put_in("forbidden", "socket_vsock", "allowed"), "forbidden.socket_vsock"),
    (put_in("forbidden", "socket_raw", "allowed"), "forbidden.socket_raw"),
    (put("memory_limit", -1), "memory_limit"),
    (put("nproc", -1), "nproc"),
    (put("disk_read", -1), "disk_read"),
    (put("pids_limit", 2625), "pids_limit"),
    (add_mount("/host", "9p", "ro"), "mounts.unexpected"),
    (add_mount("/workspace", "9p", "rw"), "mounts.stacked"),
    (remount("/", "ro", "rw"), "mounts.unexpected"),
    (remount("/workspace", "size=536870912", "size=1g"), "mounts./workspace"),
    (remount("/workspace", "tmpfs", "9p"), "mounts./workspace"),
    (unmount("/tmp"), "mounts./tmp"),
]


FOLDERS = (
    Mount(source="/srv/a", target="/data/a"),
    Mount(source="/srv/b", target="/mnt/b", read_only=False),
)


def with_folders(runtime: str = "runc") -> tuple[ContainerSpec, Raw]:
    """A container with two folders of the host, and what it measures."""
    spec = spec_for(runtime).model_copy(update={"mounts": FOLDERS})
    is_gvisor = runtime == "runsc"
    facts = as_measured_by_gvisor(spec) if is_gvisor else as_measured(spec)
    for folder, access in zip(FOLDERS, ("ro", "rw"), strict=True):
        options = "rw" if is_gvisor else f"{access} nosuid nodev relatime rw"
        facts["mounts"].append(mount(folder.target, "9p" if is_gvisor else "ext4", options))
        steps = [["/", 0o40755, 0, 0, 9, 9], ["x", 0o40755, 0, 0, 7, 8]]
        facts["places"][folder.target] = {
            "steps": steps,
            "write": "EROFS" if folder.read_only else "allowed",
        }
    return spec, facts


@pytest.mark.parametrize("runtime", ["runc", "runsc"])
def test_folders_that_are_mounted_as_they_must_be_are_proved(runtime: str) -> None:
    spec, facts = with_folders(runtime)
    directories = {"/data/a": (7, 8), "/mnt/b": (7, 8)}
    proof = examine(spec, Facts.model_validate(facts), directories, reports=ENGINE.reports)
    assert proof.failed == ()


def write_of(value: str) -> Callable[[Raw], None]:
    return lambda facts: facts["places"]["/data/a"].update(write=value)


@pytest.mark.parametrize(
    ("weaken", "name"),
    [
        (remount("/data/a", "ro", "rw"), "mounts./data/a"),
        (remount("/data/a", "nosuid", ""), "mounts./data/a"),
        (remount("/data/a", "nodev", ""), "mounts./data/a"),
        (remount("/data/a", "ext4", "proc"), "mounts./data/a"),
        (remount("/mnt/b", "nosuid", ""), "mounts./mnt/b"),
        (unmount("/data/a"), "mounts./data/a"),
        (add_mount("/data/a/sub", "ext4", "ro"), "mounts.unexpected"),
        (add_mount("/data/a", "ext4", "ro"), "mounts.stacked"),
        (write_of("allowed"), "mounts./data/a.write"),
        (put("places", {}), "mounts./data/a.write"),
        (put("places", {}), "mounts./data/a.directory"),
        (lambda facts: facts["places"]["/data/a"].update(steps=[]), "mounts./data/a.directory"),
    ],
)
def test_each_weakening_of_a_folder_is_caught(weaken: Callable[[Raw], None], name: str) -> None:
    spec, facts = with_folders()
    weaken(facts)
    proof = examine(spec, Facts.model_validate(facts), {"/data/a": (7, 8)}, reports=ENGINE.reports)
    assert name in {check.name for check in proof.failed}


def test_another_directory_than_the_one_that_was_looked_at_is_caught() -> None:
    spec, facts = with_folders()
    proof = examine(spec, Facts.model_validate(facts), {"/data/a": (7, 80)}, reports=ENGINE.reports)
    assert [check.name for check in proof.failed] == ["mounts./data/a.directory"]


def test_a_folder_of_the_kernel_or_a_write_is_caught_under_gvisor_too() -> None:
    spec, facts = with_folders("runsc")
    write_of("allowed")(facts)
    remount("/mnt/b", "9p", "sysfs")(facts)
    assert failed(spec, facts) == {"mounts./data/a.write", "mounts./mnt/b"}


@pytest.mark.parametrize(("weaken", "name"), GVISOR_WEAKENINGS)
def test_each_single_weakening_under_gvisor_is_caught(
    weaken: Callable[[Raw], None], name: str
) -> None:
    spec = spec_for("runsc")
    facts = as_measured_by_gvisor(spec)
    weaken(facts)
    assert name in failed(spec, facts)


def test_the_variables_of_the_images_are_those_that_the_proof_accepts() -> None:
    text = (resources.images() / "python" / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("ENV ")]
    assert len(lines) == 1
    names = set(re.findall(r"([A-Z_]+)=", lines[0]))
    assert names | {"HOSTNAME"} == IMAGE_VARIABLES
    for image in ("datascience", "supervisor"):
        assert "\nENV " not in (resources.images() / image / "Dockerfile").read_text()


@pytest.mark.anyio
async def test_a_proof_holds_the_facts_it_was_made_from() -> None:
    spec = spec_for()
    proof = await prove(Prober(as_measured(spec)), spec, reports=ENGINE.reports)  # type: ignore[arg-type]
    assert proof.facts.uid == spec.uid
    assert all(check.ok and check.expected and check.found for check in proof.checks)
    assert Proof.model_validate_json(proof.model_dump_json()) == proof


@pytest.mark.anyio
async def test_a_weak_container_raises_with_every_difference() -> None:
    spec = spec_for()
    facts = as_measured(spec)
    facts.update(no_new_privs=False, interfaces=["lo", "eth0"])
    with pytest.raises(PolicyNotEnforced) as caught:
        await prove(Prober(facts), spec, reports=ENGINE.reports)  # type: ignore[arg-type]
    assert "no_new_privs must be True, is False" in caught.value.message
    assert "interfaces must be lo, is lo, eth0" in caught.value.message


@pytest.mark.anyio
@pytest.mark.parametrize("name", sorted(Facts.model_fields))
async def test_a_fact_that_is_missing_or_malformed_proves_nothing(name: str) -> None:
    spec = spec_for()
    for value in ("absent", [{}], {"x": object}, -1.5):
        facts = copy.deepcopy(as_measured(spec))
        if value == "absent":
            del facts[name]
        elif name == "hostname" and isinstance(value, str):
            continue
        else:
            facts[name] = value
        with pytest.raises(PolicyNotEnforced):
            await prove(Prober(facts), spec, reports=ENGINE.reports)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_a_number_is_not_taken_for_a_truth() -> None:
    spec = spec_for()
    with pytest.raises(PolicyNotEnforced):
        await prove(
            Prober({**as_measured(spec), "no_new_privs": "yes"}), spec, reports=ENGINE.reports
        )  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_a_supervisor_that_does_not_answer_proves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proofs, "TIMEOUT_S", 0.05)
    with anyio.fail_after(5):
        with pytest.raises(PolicyNotEnforced, match="did not answer"):
            await prove(Prober(None), spec_for(), reports=ENGINE.reports)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_a_flood_of_facts_is_refused_and_what_is_shown_stays_short() -> None:
    spec = spec_for()
    facts = as_measured(spec)
    facts["environment"] = [f"V{n}" for n in range(5000)]
    with pytest.raises(PolicyNotEnforced):
        await prove(Prober(facts), spec, reports=ENGINE.reports)  # type: ignore[arg-type]
    facts["environment"] = [f"V{n}" for n in range(4000)]
    with pytest.raises(PolicyNotEnforced) as caught:
        await prove(Prober(facts), spec, reports=ENGINE.reports)  # type: ignore[arg-type]
    assert len(caught.value.message) < 2000
