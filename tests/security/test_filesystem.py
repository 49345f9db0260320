"""Attacks on files: the root, the kernel's control files, devices, and the file operations."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .conftest import Attacked, Unguarded
from .inside import attempt, readable, supervisor_pid, writable

pytestmark = pytest.mark.anyio

OWN_TMPFS = {"/tmp", "/workspace", "/dev/shm"}


async def test_nothing_is_writable_but_the_sessions_own_memory(
    sandbox: Attacked, unguarded: Unguarded
) -> None:
    """Invariant 2: a file can be made in the session's own tmpfs and in no other directory."""

    def places() -> object:
        import os

        found = set()
        for folder, names, _ in os.walk("/"):
            if folder == "/":
                names.remove("proc")
            probe = os.path.join(folder, f".probe-{os.getpid()}")
            try:
                os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                os.unlink(probe)
            except OSError:
                continue
            found.add(folder)
        return sorted(found)

    control = await unguarded.attack(places)
    assert "/etc" in control, "without the barriers the walk does find places to write"
    found = await sandbox.attack(places)
    assert set(OWN_TMPFS) <= set(found), "the walk does find what can be written"
    for folder in found:
        assert any(folder == own or folder.startswith(f"{own}/") for own in OWN_TMPFS), folder


async def test_no_existing_file_of_the_image_or_the_kernel_can_be_opened_for_writing(
    sandbox: Attacked,
) -> None:
    """Invariant 2: nothing in /etc, /usr, /opt, /sys or the kernel's part of /proc is writable."""

    def files() -> object:
        import os
        import stat

        opened, tried = [], 0
        for top in ("/etc", "/usr", "/opt", "/var", "/sys", "/proc"):
            for folder, folders, names in os.walk(top):
                if folder == "/proc":
                    own = [n for n in folders if n.isdigit() or n in ("self", "thread-self")]
                    folders[:] = [n for n in folders if n not in own]
                for name in names:
                    path = os.path.join(folder, name)
                    try:
                        if not stat.S_ISREG(os.lstat(path).st_mode):
                            continue
                        tried += 1
                        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                        opened.append(path)
                    except OSError:
                        continue
        return {"opened": opened, "tried": tried}

    found = await sandbox.attack(files)
    assert found["tried"] > 1000, "the walk saw the image"
    assert found["opened"] == []


@pytest.mark.parametrize(
    "path",
    [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hotplug",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/sys/vm/panic_on_oom",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
        "/sys/kernel/uevent_helper",
        "/sys/fs/cgroup/release_agent",
        "/sys/fs/cgroup/memory/release_agent",
        "/sys/fs/cgroup/cgroup.procs",
        "/sys/fs/cgroup/memory/notify_on_release",
        "/sys/fs/cgroup/memory.max",
        "/sys/kernel/debug",
    ],
)
async def test_a_door_to_the_hosts_kernel_is_shut(sandbox: Attacked, path: str) -> None:
    """Invariant 2: the files by which containers have run code on their host cannot be written."""

    def door(path: str) -> object:
        return writable(path, b"|/tmp/x\n")

    before = attempt_to_read(path)
    assert await sandbox.attack(door, path) in ("EACCES", "EPERM", "EROFS", "ENOENT", "EISDIR")
    assert attempt_to_read(path) == before


def attempt_to_read(path: str) -> str:
    """What the host's own copy of a file says, to see that it has not changed."""
    try:
        return Path(path).read_text()
    except OSError as exc:
        return type(exc).__name__


async def test_cgroups_cannot_be_left_or_loosened(sandbox: Attacked) -> None:
    """Policy rule limits: no cgroup file is writable, wherever a cgroup filesystem is mounted."""

    def cgroups() -> object:
        import os

        found = []
        with open("/proc/self/mountinfo") as lines:
            mounts = [line.split() for line in lines]
        for fields in mounts:
            kind = fields[fields.index("-") + 1]
            if kind not in ("cgroup", "cgroup2"):
                continue
            for folder, _, names in os.walk(fields[4]):
                paths = (os.path.join(folder, name) for name in names)
                found += [path for path in paths if writable(path) == "ok"]
                if writable(os.path.join(folder, "new")) == "ok" or isinstance(
                    attempt(lambda folder=folder: os.mkdir(f"{folder}/escape")), type(None)
                ):
                    found.append(folder)
        return found

    assert await sandbox.attack(cgroups) == []


@pytest.mark.parametrize(
    "path",
    [
        "/proc/cmdline",
        "/proc/version",
        "/proc/kallsyms",
        "/proc/kcore",
        "/proc/keys",
        "/proc/key-users",
        "/proc/config.gz",
        "/proc/loadavg",
        "/proc/timer_list",
        "/proc/sched_debug",
        "/proc/diskstats",
        "/proc/partitions",
        "/proc/modules",
        "/proc/kmsg",
        "/proc/kpageflags",
        "/proc/vmallocinfo",
        "/proc/interrupts",
        "/proc/iomem",
    ],
)
async def test_a_file_that_tells_about_the_host_says_nothing(sandbox: Attacked, path: str) -> None:
    """Invariant 2: masked parts of /proc are empty, absent or refused."""

    def look(path: str) -> object:
        return readable(path, 4096)

    said = await sandbox.attack(look, path)
    assert said in ("", "EACCES", "EPERM", "ENOENT") or (sandbox.gvisor and said not in host(path))


def host(path: str) -> str:
    """The same file as the host sees it."""
    try:
        with open(path, "rb") as stream:
            return stream.read(4096).decode("latin-1")
    except OSError:
        return ""


async def test_sysfs_shows_nothing_but_the_sessions_own_limits(sandbox: Attacked) -> None:
    """Invariant 2: under /sys only the control group of this container can be read: no disks, no
    buses, no firmware, and no other container's name."""

    def sysfs() -> object:
        import os

        found = []
        for folder, _, names in os.walk("/sys"):
            found += [os.path.join(folder, name) for name in names]
        told = [path for path in found if readable(path, 1) not in ("", "EACCES", "EPERM", "EIO")]
        inner = {folder for folder, _, _ in os.walk("/sys/fs/cgroup")}
        return {
            "outside": [path for path in told if not path.startswith("/sys/fs/cgroup/")],
            "names": sorted(
                name for folder in inner for name in folder.split("/") if len(name) > 30
            ),
        }

    assert len(os.listdir("/sys")) > 5, "the host has one"
    answer = await sandbox.attack(sysfs)
    assert answer["outside"] == [] or sandbox.gvisor  # gVisor's is made up and names no hardware
    assert answer["names"] == []


async def test_dev_holds_only_harmless_devices(sandbox: Attacked) -> None:
    """Invariant 2: no disk, memory, input, tun, fuse, kvm or vsock device exists."""

    def devices() -> object:
        import os
        import stat

        found = {}
        for folder, _, names in os.walk("/dev"):
            for name in names:
                path = os.path.join(folder, name)
                mode = os.lstat(path).st_mode
                if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                    found[path] = "block" if stat.S_ISBLK(mode) else "char"
        return found

    harmless = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")}
    found = await sandbox.attack(devices)
    assert harmless <= set(found)
    others = {p for p in found if p not in harmless and not p.startswith("/dev/pts/")}
    if sandbox.gvisor:  # these two lead into gVisor's own kernel, which has no network and no host
        others -= {"/dev/fuse", "/dev/net/tun"}
    assert others <= {"/dev/ptmx", "/dev/console"}
    assert "block" not in found.values()


async def test_no_host_file_is_mounted(sandbox: Attacked) -> None:
    """Invariant 2: every mount is the image, the kernel's, or memory; only the engine's three files
    of name resolution and its init program come from the host, read-only."""

    def mounts() -> object:
        with open("/proc/self/mountinfo") as lines:
            rows = [line.split() for line in lines]
        return [[row[4], row[row.index("-") + 1], row[3], row[5] + "," + row[-1]] for row in rows]

    from_engine = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
    from_engine |= {"/sbin/docker-init", "/usr/sbin/docker-init"}
    kernel = {"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue"}
    rows = await sandbox.attack(mounts)
    assert {"/", "/tmp", "/workspace"} <= {target for target, *_ in rows}
    for target, kind, root, options in rows:
        if kind in kernel | {"tmpfs"} or target == "/":
            continue
        if target.startswith(("/dev/", "/proc/", "/sys")) and root in ("/null", "/zero"):
            continue  # a masked file
        assert target in from_engine, (target, kind, root)
        assert "ro" in options.split(","), target
    for target, _, _, options in rows:
        if target in OWN_TMPFS and not sandbox.gvisor:  # which does not list these flags
            assert {"nosuid", "nodev"} <= set(options.split(",")), target
        if target == "/":
            assert "ro" in options.split(",")


async def test_no_program_of_the_image_raises_privileges(sandbox: Attacked) -> None:
    """Invariant 4: no set-id file and no file capability is in the image, and none can take
    effect."""

    def privileged() -> object:
        import os
        import shutil
        import subprocess
        import sys

        found = []
        for folder, names, files in os.walk("/"):
            if folder == "/":
                names[:] = [name for name in names if name not in ("proc", "sys")]
            for name in files:
                path = os.path.join(folder, name)
                try:
                    if os.lstat(path).st_mode & 0o6000:
                        found.append(path)
                    if os.getxattr(path, "security.capability", follow_symlinks=False):
                        found.append(path)
                except OSError:
                    continue
        copy = shutil.copy(os.path.realpath(sys.executable), f"/workspace/python-{os.getpid()}")
        os.chmod(copy, 0o6755)  # noqa: S103  # the attack
        ids = subprocess.run(
            [copy, "-I", "-S", "-c", "import os; print(os.getresuid(), os.getresgid())"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        os.unlink(copy)
        return {"found": found, "ids": ids.stdout.strip(), "uid": os.getuid()}

    answer = await sandbox.attack(privileged)
    uid = answer["uid"]
    assert uid >= 1000
    assert answer["found"] == []
    assert answer["ids"] == f"({uid}, {uid}, {uid}) ({uid}, {uid}, {uid})"


async def test_no_socket_of_the_host_is_reachable(sandbox: Attacked) -> None:
    """Invariant 2: neither docker.sock nor any socket but the supervisor's is in the filesystem."""

    def sockets() -> object:
        import os
        import socket
        import stat

        found = []
        for folder, names, files in os.walk("/"):
            if folder == "/":
                names[:] = [name for name in names if name not in ("proc", "sys")]
            for name in files:
                path = os.path.join(folder, name)
                try:
                    if stat.S_ISSOCK(os.lstat(path).st_mode):
                        found.append(path)
                except OSError:
                    continue
        answers = {}
        for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock"):
            with socket.socket(socket.AF_UNIX) as client:
                answers[path] = attempt(lambda client=client, path=path: client.connect(path))
        return {"found": found, "answers": answers}

    engine = Path("/var/run/docker.sock")
    assert engine.is_socket(), "the host has one"  # at once
    answer = await sandbox.attack(sockets)
    assert set(answer["answers"].values()) <= {"ENOENT", "ENOTDIR", "EACCES"}
    assert [path for path in answer["found"] if not path.startswith(("/tmp/", "/workspace/"))] == []


async def test_the_controllers_environment_stays_outside(sandbox: Attacked) -> None:
    """Invariant 2: no variable of the controller's environment reaches any process inside."""

    def environments() -> object:
        import os

        found = ["\0".join(os.environ)]
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/environ", "rb") as stream:
                    found.append(stream.read().decode("latin-1"))
            except OSError:
                continue
        return found

    assert os.environ["SANDBOX_CANARY"], "set by conftest before any session was opened"
    found = await sandbox.attack(environments)
    assert len(found) > 1
    for environment in found:
        assert "SANDBOX_CANARY" not in environment
        assert os.environ["SANDBOX_CANARY"] not in environment


async def test_only_the_sessions_own_processes_are_visible(sandbox: Attacked) -> None:
    """Invariant 2: /proc has no host process, and its root links lead to our own root."""

    def processes() -> object:
        import os

        own = os.stat("/")
        roots = {}
        for pid in (1, supervisor_pid(), os.getpid()):
            got = attempt(lambda pid=pid: os.stat(f"/proc/{pid}/root/").st_ino)
            roots[str(pid)] = got if isinstance(got, str) else got == own.st_ino
        above = os.stat("/proc/self/root/../../..")
        return {
            "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
            "roots": list(roots.values()),
            "above": above.st_ino == own.st_ino,
        }

    answer = await sandbox.attack(processes)
    assert len(answer["pids"]) < 30
    assert set(answer["roots"]) <= {True, "EACCES", "EPERM"}
    assert answer["roots"][-1] is True, "its own can be looked at"
    assert answer["above"] is True


async def test_files_of_others_cannot_be_linked_or_read(sandbox: Attacked) -> None:
    """Invariant 2: a hard link to a protected file is refused, and so is reading it."""

    def link() -> object:
        import os

        return {
            "hard link": attempt(lambda: os.link("/etc/shadow", f"/workspace/s{os.getpid()}")),
            "shadow": readable("/etc/shadow", 1),
            "root": attempt(lambda: os.listdir("/root")),
        }

    answers = await sandbox.attack(link)
    assert answers["hard link"] in ("EXDEV", "EPERM", "EROFS", "ENOENT")
    assert answers["shadow"] in ("EACCES", "ENOENT")
    assert answers["root"] in ("EACCES", "ENOENT", [])
