"""Attacks on the kernel: system calls, capabilities, namespaces, devices.

Under ``runc`` the barrier is our seccomp profile on the host's kernel. Under ``runsc`` (gVisor) the
calls never reach the host: gVisor's own kernel answers them, and it does not read the profile.
Where its answer may be a success that stays inside that kernel, the test says so.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Attacked, Unguarded
from .inside import (
    NUMBERS,
    X86_64,
    attempt,
    call,
    in_child,
    int80,
    raw,
    status_of,
    supervisor_pid,
    writable,
)

pytestmark = pytest.mark.anyio

REFUSED = {"EPERM", "ENOSYS"}
"""What the profile answers: EPERM for a known call, ENOSYS for one newer than the list."""

SAFE_TO_TRY_ON_THE_HOST = {
    "io_uring",
    "old asynchronous I/O",
    "page faults in user space",
    "keyrings",
    "secret memory",
    "message queues and gifted pages",
    "flushing every disk of the host",
}

ANSWERED_BY_GVISOR = {
    "sync", "io_setup", "msgget", "vmsplice", "modify_ldt", "syslog", "keyctl", "chroot",
}  # fmt: skip
"""Calls that gVisor's own kernel may grant; what they touch is that kernel's, not the host's."""


async def test_the_32_bit_gate_is_shut(sandbox: Attacked, unguarded: Unguarded) -> None:
    """Invariant 4: a number of the 32-bit table must not slip past a filter of 64-bit numbers."""

    def gate() -> object:
        import errno

        def vsock_by_int80() -> object:
            answer = int80(359, 40, 1, 0)  # socket(AF_VSOCK, SOCK_STREAM, 0) in that table
            return errno.errorcode[-answer] if answer < 0 else "socket"

        return {
            "getpid": in_child(lambda: int80(20) > 0) if X86_64 else "no such gate",
            "vsock": in_child(vsock_by_int80) if X86_64 else "no such gate",
        }

    if unguarded.x86_64:
        assert (await unguarded.attack(gate))["getpid"] is True, "the gate is there to be tried"
    answers = await sandbox.attack(gate)
    if sandbox.gvisor:  # it answers as a kernel without that table; the host sees nothing
        assert answers["getpid"] is not True
        assert answers["vsock"] != "socket"
    elif unguarded.x86_64:
        assert set(map(str, answers.values())) == {"{'signal': 'SIGSYS'}"}


async def test_the_x32_table_is_shut(sandbox: Attacked) -> None:
    """Invariant 4: x32 numbers name the same calls again, and must not name them to us."""

    def x32() -> object:
        bit = 0x40000000
        return {
            "getpid": in_child(lambda: raw(bit | 39)),
            "ptrace": in_child(lambda: raw(bit | 521, 0, 0, 0, 0)),
            "socket": in_child(lambda: raw(bit | 41, 40, 1, 0)),
        }

    for answer in (await sandbox.attack(x32)).values():
        assert answer in ({"signal": "SIGSYS"}, "ENOSYS", "EPERM")


async def test_only_three_socket_families_exist(sandbox: Attacked, unguarded: Unguarded) -> None:
    """Invariant 1: no family but UNIX, INET and INET6; vsock has no network namespace."""

    def families() -> object:
        return {
            family: call("socket", family, kind, 0) for family in range(1, 64) for kind in (1, 3)
        }

    def vsock() -> object:
        return call("socket", 40, 1, 0)

    assert isinstance(await unguarded.attack(vsock), int), "the host's kernel has vsock to attack"

    def opened() -> object:
        return [
            family
            for family in range(64)
            if any(isinstance(call("socket", family, kind, 0), int) for kind in range(1, 11))
        ]

    netlink = {16} if sandbox.gvisor else set[int]()  # its own, of its own network
    assert set(await sandbox.attack(opened)) <= {1, 2, 10} | netlink
    assert set((await sandbox.attack(families)).values()) - REFUSED


async def test_inet_sockets_are_tcp_and_udp_alone(sandbox: Attacked) -> None:
    """Invariant 1: no raw sockets, and no protocol that makes the host load a module."""

    def protocols() -> object:
        opened = []
        for family in (2, 10):
            for kind in range(1, 11):
                for protocol in range(263):
                    descriptor = call("socket", family, kind, protocol)
                    if isinstance(descriptor, int):
                        import os

                        os.close(descriptor)
                        opened.append([family, kind, protocol])
        return opened

    allowed = {
        (family, kind, protocol)
        for family in (2, 10)
        for kind, protocol in ((1, 0), (1, 6), (2, 0), (2, 17))
    }
    opened = {tuple(row) for row in await sandbox.attack(protocols)}
    if sandbox.gvisor:  # its own network stack has ping sockets; they end in the same loopback
        opened -= {(2, 2, 1), (10, 2, 58)}
    assert opened == allowed


async def test_netlink_speaks_no_protocol(sandbox: Attacked, unguarded: Unguarded) -> None:
    """Invariant 1: routes, netfilter, audit, xfrm and the others of netlink stay unreachable."""

    def protocols() -> object:
        return [p for p in range(32) if isinstance(call("socket", 16, 3, p), int)]

    assert len(await unguarded.attack(protocols)) > 3, "the host's kernel offers more"
    opened = set(await sandbox.attack(protocols))
    # 0 and 15: gVisor's own routes and its empty uevent
    assert opened <= ({0, 15} if sandbox.gvisor else set[int]())


async def test_socket_pairs_are_unix_only(sandbox: Attacked) -> None:
    """Invariant 1: socketpair takes a family too, and TIPC once answered to it."""

    def pairs() -> object:
        import ctypes

        room = ctypes.create_string_buffer(8)
        return [f for f in range(46) if isinstance(call("socketpair", f, 1, 0, room.raw), int)]

    def refused() -> object:
        return {str(f): call("socketpair", f, 1, 0, None) for f in range(2, 46)}

    assert await sandbox.attack(pairs) == [1]
    if not sandbox.gvisor:
        assert set((await sandbox.attack(refused)).values()) == {"EPERM"}


async def test_arguments_hidden_in_high_bits_are_seen(sandbox: Attacked) -> None:
    """Invariant 4: the kernel drops bits 32 to 63 of an int; the filter is not led past by them."""

    def high_bits() -> object:
        return {
            "vsock": call("socket", (1 << 32) | 40, 1, 0),
            "unix with vsock below": call("socket", (40 << 32) | 1, 1, 0),
            "TIOCSTI": call("ioctl", 0, (1 << 32) | 0x5412, b"x"),
            "TIOCSTI sign-extended": call("ioctl", 0, (-1 << 32) | 0x5412, b"x"),
            "personality": call("personality", (1 << 32) | 0x0040000),
        }

    answers = await sandbox.attack(high_bits)
    if sandbox.gvisor:
        assert not isinstance(answers["vsock"], int)
        assert not isinstance(answers["TIOCSTI"], int)
    else:
        assert set(answers.values()) == {"EPERM"}


async def test_keystrokes_cannot_be_pushed_into_a_terminal(
    sandbox: Attacked, unguarded: Unguarded
) -> None:
    """Invariant 4: TIOCSTI, TIOCLINUX and line disciplines are refused on one's own terminal."""

    def push() -> object:
        import os
        import pty

        def on_my_terminal() -> object:
            _, slave = pty.openpty()
            os.setsid()
            call("ioctl", slave, 0x540E, 0)  # TIOCSCTTY
            return {
                "TIOCSTI": call("ioctl", slave, 0x5412, b"x"),
                "TIOCLINUX": call("ioctl", slave, 0x541C, b"\x06"),
                "TIOCSETD": call("ioctl", slave, 0x5423, b"\x0d\0\0\0"),  # N_HDLC
            }

        return in_child(on_my_terminal)

    assert "EPERM" not in (await unguarded.attack(push)).values(), "the requests get that far"
    answers = await sandbox.attack(push)
    assert all(isinstance(answer, str) for answer in answers.values())
    if not sandbox.gvisor:
        assert set(answers.values()) == {"EPERM"}


async def test_no_new_namespace_can_be_made(sandbox: Attacked, unguarded: Unguarded) -> None:
    """Invariant 4: unshare and clone give no user namespace, and so no capability within one."""

    def namespaces() -> object:
        flags = {
            "time": 0x80,
            "mount": 0x20000,
            "cgroup": 0x2000000,
            "uts": 0x4000000,
            "ipc": 0x8000000,
            "user": 0x10000000,
            "pid": 0x20000000,
            "net": 0x40000000,
        }

        def clone(flag: int) -> object:
            import os

            pid = call("clone", flag | 17, 0, 0, 0, 0)
            if pid == 0:
                os._exit(0)
            return pid

        answers = {}
        for name, flag in flags.items():
            answers[f"unshare {name}"] = in_child(lambda flag=flag: call("unshare", flag))
            if name != "time":  # in clone's flags that bit is part of the exit signal
                answers[f"clone {name}"] = in_child(lambda flag=flag: clone(flag))
        return answers

    assert (await unguarded.attack(namespaces))["unshare user"] == 0, "the kernel offers them"
    answers = await sandbox.attack(namespaces)
    if sandbox.gvisor:
        # gVisor grants user namespaces of its own kernel, ignores flags that it does not know, and
        # gives no namespace that it does know to a process without capabilities.
        for kind in ("uts", "ipc", "net", "pid"):
            assert not isinstance(answers[f"unshare {kind}"], int)
    else:
        assert set(answers.values()) == {"EPERM"}


async def test_a_process_cannot_become_the_supervisors_child(sandbox: Attacked) -> None:
    """Invariant 4: CLONE_PARENT would hang a cell's process under the supervisor."""

    def adopt() -> object:
        import os

        def clone() -> object:
            pid = call("clone", 0x8000 | 17, 0, 0, 0, 0)
            if pid == 0:
                os._exit(0)
            return pid

        return in_child(clone)

    answer = await sandbox.attack(adopt)
    if sandbox.gvisor:
        assert answer in ("EINVAL", "EPERM") or isinstance(answer, int)  # no filter there
    else:
        assert answer == "EPERM"


async def test_clone3_is_absent_so_flags_stay_visible(sandbox: Attacked) -> None:
    """Invariant 4: clone3 hides its flags in memory; it must answer as if it did not exist."""

    def clone3() -> object:
        import struct

        arguments = struct.pack("<11Q", 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
        return in_child(lambda: call("clone3", arguments, len(arguments)))

    answer = await sandbox.attack(clone3)
    assert answer == "ENOSYS" or sandbox.gvisor


async def test_no_other_namespace_can_be_entered(sandbox: Attacked) -> None:
    """Invariant 4: setns refuses the namespaces of the container's first process."""

    def enter() -> object:
        import os

        answers = {}
        for name in os.listdir("/proc/self/ns"):
            for pid in (1, supervisor_pid()):

                def join(pid: int = pid, name: str = name) -> object:
                    return call("setns", os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), 0)

                answers[f"{pid} {name}"] = in_child(join)
        return answers

    answers = await sandbox.attack(enter)
    assert answers
    assert set(answers.values()) <= {"EPERM", "EACCES", "EINVAL", "ENOENT", "ENOSYS", "ENOTSUP"}


async def test_other_processes_cannot_be_traced_or_read(
    sandbox: Attacked, unguarded: Unguarded
) -> None:
    """Invariant 4: ptrace, process_vm_* and pidfd_getfd do not work on siblings of one uid."""

    def spy() -> object:
        import ctypes
        import os
        import signal

        child = os.fork()
        if child == 0:
            signal.pause()
        secret = ctypes.create_string_buffer(8)
        address = ctypes.addressof(secret)

        class Piece(ctypes.Structure):
            _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

        local, remote = Piece(address, 8), Piece(address, 8)
        pieces = ctypes.addressof(local), 1, ctypes.addressof(remote), 1
        pidfd = call("pidfd_open", child, 0)
        pidfd = pidfd if isinstance(pidfd, int) else -1  # gVisor had none at first
        answers = {
            "attach": in_child(lambda: call("ptrace", 16, child, 0, 0)),
            "seize": in_child(lambda: call("ptrace", 0x4206, child, 0, 0)),
            "read": call("process_vm_readv", child, *pieces, 0),
            "write": call("process_vm_writev", child, *pieces, 0),
            "getfd": call("pidfd_getfd", pidfd, 0, 0),
            "madvise": call("process_madvise", pidfd, pieces[2], 1, 20, 0),
            "kcmp": call("kcmp", os.getpid(), child, 0, 0, 0),
        }
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return answers

    control = await unguarded.attack(spy)
    assert (control["attach"], control["read"]) == (0, 8), "these calls do work on a sibling"
    answers = await sandbox.attack(spy)
    if (
        sandbox.gvisor
    ):  # ptrace and process_vm_* exist there; they reach this sandbox's own processes
        assert not [a for n, a in answers.items() if n in ("getfd", "kcmp") and isinstance(a, int)]
    else:
        assert set(answers.values()) == {"EPERM"}


@pytest.mark.parametrize(
    ("group", "calls"),
    [
        ("io_uring", {"io_uring_setup": (4, None)}),
        ("old asynchronous I/O", {"io_setup": (4, None)}),
        ("page faults in user space", {"userfaultfd": (1,)}),
        (
            "keyrings",
            {
                "keyctl": (0, -3, 1),
                "add_key": (b"user", b"x", b"y", 1, -3),
                "request_key": (b"user", b"x", None, -3),
            },
        ),
        ("kernel programs", {"bpf": (0, b"\x02" + bytes(71), 72)}),
        ("performance counters", {"perf_event_open": (bytes(128), 0, -1, -1, 0)}),
        (
            "mounts",
            {
                "mount": (b"none", b"/tmp", b"tmpfs", 0, None),
                "umount2": (b"/tmp", 2),
                "fsopen": (b"tmpfs", 0),
                "fspick": (-100, b"/", 0),
                "open_tree": (-100, b"/", 1),
                "move_mount": (-100, b"/tmp", -100, b"/workspace", 0),
                "mount_setattr": (-100, b"/", 0, bytes(32), 32),
                "pivot_root": (b"/tmp", b"/tmp"),
                "chroot": (b"/tmp",),
            },
        ),
        (
            "file handles",
            {
                "name_to_handle_at": (-100, b"/etc/passwd", bytes(200), bytes(8), 0),
                "open_by_handle_at": (3, bytes(200), 0),
            },
        ),
        ("secret memory", {"memfd_secret": (0,)}),
        (
            "modules and kexec",
            {
                "init_module": (b"x", 1, b""),
                "finit_module": (0, b"", 0),
                "delete_module": (b"x", 0),
                "kexec_load": (0, 0, None, 0),
                "kexec_file_load": (0, 0, 0, b"", 0),
            },
        ),
        (
            "the machine",
            {
                "reboot": (0xFEE1DEAD, 672274793, 0, None),
                "swapon": (b"/tmp/x", 0),
                "swapoff": (b"/tmp/x",),
                "acct": (None,),
                "sethostname": (b"x", 1),
                "setdomainname": (b"x", 1),
                "vhangup": (),
                "quotactl": (0x800002, None, 0, None),
                "quotactl_fd": (0, 0x800002, 0, None),
                "syslog": (3, bytes(100), 100),
                "lookup_dcookie": (0, bytes(100), 100),
            },
        ),
        (
            "clocks",
            {
                "settimeofday": (bytes(16), None),
                "clock_settime": (0, bytes(16)),
                "adjtimex": (b"\x01" + bytes(255),),
                "clock_adjtime": (0, b"\x01" + bytes(255)),
            },
        ),
        ("message queues and gifted pages", {"msgget": (0, 0o1600), "vmsplice": (1, None, 0, 0)}),
        ("watching all files", {"fanotify_init": (0, 0)}),
        (
            "placement in memory",
            {"migrate_pages": (0, 0, None, None), "move_pages": (0, 0, *[None] * 3, 0)},
        ),
        (
            "ports and descriptor tables",
            {"iopl": (3,), "ioperm": (0x80, 1, 1), "modify_ldt": (0, bytes(8), 8)},
        ),
        ("flushing every disk of the host", {"sync": ()}),
    ],
)
async def test_a_dangerous_group_of_calls_is_refused(
    sandbox: Attacked,
    unguarded: Unguarded,
    group: str,
    calls: dict[str, tuple[int | bytes | None, ...]],
) -> None:
    """Invariant 4: none of these calls gets past the profile, whatever its arguments."""

    def answers(calls: dict[str, tuple[int | bytes | None, ...]]) -> object:
        return {name: call(name, *arguments) for name, arguments in calls.items()}

    got = await sandbox.attack(answers, calls)
    if group in SAFE_TO_TRY_ON_THE_HOST and not sandbox.gvisor:
        control = await unguarded.attack(answers, calls)
        assert set(control.values()) != set(got.values()), "there is something to be refused"
    if sandbox.gvisor:
        got = {name: answer for name, answer in got.items() if name not in ANSWERED_BY_GVISOR}
        assert not [name for name, answer in got.items() if isinstance(answer, int)]
    else:
        assert set(got.values()) <= REFUSED


async def test_randomisation_cannot_be_switched_off(sandbox: Attacked) -> None:
    """Invariant 4: personality may be asked, and not changed to a weaker one."""

    def personas() -> object:
        values = (0xFFFFFFFF, 0, 0x0040000, 0x0400000, 0x8, 0x0020000)
        return [in_child(lambda value=value: call("personality", value)) for value in values]

    asked, same, *weaker = await sandbox.attack(personas)
    if sandbox.gvisor:
        assert set(weaker) <= {"EINVAL", "EPERM"}
    else:
        assert (asked, same) == (0, 0)
        assert set(weaker) == {"EPERM"}


async def test_device_nodes_and_whiteouts_cannot_be_made(sandbox: Attacked) -> None:
    """Invariant 2: no device node, not even the 0:0 one that needs no capability; FIFOs can be."""

    def nodes() -> object:
        import os

        def make(name: str, kind: int, device: int) -> object:
            path = f"/workspace/{name}-{os.getpid()}"
            made = call("mknodat", -100, path.encode(), kind | 0o600, device)
            if made != 0:
                return made
            opened = attempt(lambda: os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            os.unlink(path)
            return opened

        return {
            "fifo": make("fifo", 0o010000, 0),
            "whiteout": make("whiteout", 0o020000, 0),
            "memory": make("memory", 0o020000, 0x101),
            "disk": make("disk", 0o060000, 0x800),
            "virtual disk": make("vdisk", 0o060000, 254 << 8),
        }

    answers = await sandbox.attack(nodes)
    assert isinstance(answers.pop("fifo"), int)
    if sandbox.gvisor:  # it lets the node be made, and has no such device behind it
        assert set(answers.values()) <= {"EPERM", "EACCES", "ENXIO", "ENODEV"}
    else:
        assert set(answers.values()) == {"EPERM"}


async def test_no_process_holds_or_can_gain_a_capability(
    sandbox: Attacked, unguarded: Unguarded
) -> None:
    """Invariant 4: all five capability sets are empty, for every process in the container."""

    def capabilities() -> object:
        import os

        found = set()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            status = attempt(lambda pid=pid: status_of(pid))
            if isinstance(status, dict):
                found |= {
                    (n, status[n]) for n in status if n.startswith("Cap") and int(status[n], 16)
                }
        return sorted(found)

    assert await unguarded.attack(capabilities), "a container can hold capabilities"
    assert await sandbox.attack(capabilities) == []


async def test_every_process_is_filtered_and_cannot_gain_privileges(sandbox: Attacked) -> None:
    """Invariant 4: NoNewPrivs and seccomp hold for the supervisor and all that it starts."""

    def barriers() -> object:
        import os

        return sorted(
            {
                (status.get("NoNewPrivs"), status.get("Seccomp"), int(status["Uid"].split()[0]) > 0)
                for status in (
                    attempt(lambda pid=pid: status_of(pid))
                    for pid in os.listdir("/proc")
                    if pid.isdigit()
                )
                if isinstance(status, dict)
            }
        )

    found = await sandbox.attack(barriers)
    if sandbox.gvisor:
        assert {row[2] for row in found} == {True}
    else:
        assert found == [["1", "2", True]]


async def test_limits_cannot_be_raised(sandbox: Attacked) -> None:
    """Policy rule limits: hard limits do not go up, and a process cannot dodge the OOM killer."""

    def raise_limits() -> object:
        import resource

        answers = {}
        for name in ("NOFILE", "CORE", "FSIZE", "MEMLOCK", "MSGQUEUE"):
            which = getattr(resource, f"RLIMIT_{name}")
            hard = resource.getrlimit(which)[1]

            def more(which: int = which) -> object:
                unlimited = resource.RLIM_INFINITY
                return resource.setrlimit(which, (unlimited, unlimited))

            try:
                more()
                answers[name] = "raised" if resource.getrlimit(which)[1] != hard else "same"
            except (ValueError, OSError) as exc:
                answers[name] = type(exc).__name__
        answers["oom"] = writable("/proc/self/oom_score_adj", b"-1000")
        return answers

    answers = await sandbox.attack(raise_limits)
    oom = answers.pop("oom")
    assert oom in ("EACCES", "EPERM") or sandbox.gvisor  # gVisor keeps the number to itself
    assert "raised" not in answers.values()


def test_the_profile_is_an_allow_list_without_dangerous_calls() -> None:
    """Invariant 4: the file itself names no call that another test of this module must see
    refused."""
    root = Path(__file__).parents[2]
    profile = json.loads((root / "policies/seccomp/default.json").read_text())
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert set(profile["architectures"]) == {"SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"}
    allowed = [rule for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW"]
    assert {rule["action"] for rule in profile["syscalls"] if rule not in allowed} == {
        "SCMP_ACT_ERRNO"
    }
    free = {name for rule in allowed if not rule.get("args") for name in rule["names"]}
    bound = {name for rule in allowed if rule.get("args") for name in rule["names"]}
    memory = {"mmap", "memfd_create", "shmget"}
    files = {"mknod", "mknodat", "ioctl"}
    sockets = {"socket", "socketpair", "setsockopt"}
    assert bound == {"clone", "prctl", "personality", *sockets, *files, *memory}
    harmless = {"setuid", "pidfd_open"}
    assert not free & (set(NUMBERS) - harmless)
    assert not free & bound, "a free rule would switch the bound one off"
    for rule in allowed:  # runc joins two conditions on one argument by "or"
        places = [argument["index"] for argument in rule.get("args", ())]
        assert len(places) == len(set(places)), rule["comment"]
