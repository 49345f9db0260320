"""Attacks through doors that are no forbidden call: ids, filters, attributes, priorities, cores."""

from __future__ import annotations

import pytest

from .conftest import Attacked, Unguarded
from .inside import X86_64, attempt, in_child, raw, status_of, writable

pytestmark = pytest.mark.anyio


async def test_an_id_map_cannot_be_written(sandbox: Attacked) -> None:
    """Invariant 4: nobody maps root, or another session's uid, onto the session's own."""

    def maps() -> object:
        import os

        me = os.getuid()
        return {
            "uid": writable("/proc/self/uid_map", f"0 {me} 1\n".encode()),
            "gid": writable("/proc/self/gid_map", f"0 {me} 1\n".encode()),
            "setgroups": writable("/proc/self/setgroups", b"allow\n"),
            "seen": open("/proc/self/status").read().count(f"Uid:\t{me}\t{me}\t{me}\t{me}"),
        }

    answers = await sandbox.attack(maps)
    assert answers.pop("seen") == 1
    assert "ok" not in answers.values()


async def test_another_id_cannot_be_taken(sandbox: Attacked, unguarded: Unguarded) -> None:
    """Invariant 4: no call turns the session's uid or groups into others."""

    def ids() -> object:
        import os

        def changed(change: object) -> object:
            def run() -> object:
                change()  # type: ignore[operator]
                return [os.getuid(), os.geteuid(), os.getgid(), sorted(os.getgroups())]

            return in_child(run)

        return {
            "setuid": changed(lambda: os.setuid(0)),
            "setresuid": changed(lambda: os.setresuid(0, 0, 0)),
            "setreuid": changed(lambda: os.setreuid(1, 1)),
            "setgid": changed(lambda: os.setgid(0)),
            "setgroups": changed(lambda: os.setgroups([0, 4, 27])),
            "initgroups": changed(lambda: os.initgroups("root", 0)),
        }

    control = await unguarded.attack(ids)
    assert control["setreuid"][0] == 1, "root may take another id"
    assert set(map(str, (await sandbox.attack(ids)).values())) == {"EPERM"}


async def test_credentials_sent_over_a_socket_cannot_be_forged(
    sandbox: Attacked, unguarded: Unguarded
) -> None:
    """Invariant 4: nobody poses as another to whoever asks the kernel who calls."""

    def forge() -> object:
        import os
        import socket
        import struct

        ours, _theirs = socket.socketpair()

        def claim(uid: int) -> object:
            credentials = struct.pack("3i", os.getpid(), uid, uid)
            ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials)])
            return "believed"

        mine = os.getuid()
        return {"own": attempt(lambda: claim(mine)), "foreign": attempt(lambda: claim(mine + 1))}

    control = await unguarded.attack(forge)
    assert control["foreign"] == "believed", "root may claim any id"
    answers = await sandbox.attack(forge)
    if sandbox.gvisor:  # what is claimed there is told to this sandbox's own processes alone
        assert answers["foreign"] in ("EPERM", "believed")
    else:
        assert answers == {"own": "believed", "foreign": "EPERM"}


async def test_a_filter_of_ones_own_loosens_nothing(sandbox: Attacked) -> None:
    """Invariant 4: a process cannot add a filter to ours, and would only tighten by it."""

    def loosen() -> object:
        import ctypes
        import socket
        import struct

        def allow_everything() -> object:
            instruction = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))
            program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(instruction))
            libc = ctypes.CDLL(None, use_errno=True)
            installed = libc.prctl(22, 2, ctypes.create_string_buffer(program), 0, 0)
            try:
                socket.socket(40, socket.SOCK_STREAM).close()
            except OSError as exc:
                return {"installed": installed, "vsock": exc.errno, "mode": status_of()["Seccomp"]}
            return "vsock"

        return in_child(allow_everything)

    answer = await sandbox.attack(loosen)
    assert answer != "vsock"
    if not sandbox.gvisor:
        assert (answer["mode"], answer["installed"]) == ("2", -1)


async def test_a_program_in_memory_gains_nothing(sandbox: Attacked) -> None:
    """Invariant 4: a set-id bit on a file that no filesystem holds raises nobody's rights."""

    def from_memory() -> object:
        import os
        import subprocess

        descriptor = os.memfd_create("id", 0)
        with open("/usr/bin/id", "rb") as program:
            os.write(descriptor, program.read())
        mode = attempt(lambda: os.fchmod(descriptor, 0o6755))
        ran = subprocess.run(
            [f"/proc/self/fd/{descriptor}", "-u"],
            pass_fds=[descriptor],
            capture_output=True,
            text=True,
            check=False,
        )
        return {"mode": mode, "uid": ran.stdout.strip(), "own": str(os.getuid())}

    answer = await sandbox.attack(from_memory)
    assert answer["uid"] in ("", answer["own"])


async def test_files_carry_no_capabilities_and_no_overlay_marks(
    sandbox: Attacked, unguarded: Unguarded
) -> None:
    """Invariant 4: attributes that the kernel acts on cannot be set on the session's own files."""

    def mark() -> object:
        import os

        path = "/tmp/marked"
        with open(path, "w") as made:
            made.write("x")
        capability = b"\x01\x00\x00\x02\xff\xff\xff\xff" + bytes(12)
        answers = {
            name: attempt(lambda name=name, value=value: os.setxattr(path, name, value) or "set")
            for name, value in (
                ("security.capability", capability),
                ("trusted.overlay.opaque", b"y"),
                ("trusted.overlay.redirect", b"/etc"),
                ("trusted.anything", b"x"),
            )
        }
        os.unlink(path)
        return answers

    control = await unguarded.attack(mark)
    assert control["security.capability"] == "set", "root may give a file capabilities"
    assert "set" not in (await sandbox.attack(mark)).values()


async def test_files_cannot_be_made_to_outlast_their_session(sandbox: Attacked) -> None:
    """Invariant 7: no file can be made immutable, so that whoever cleans up could not."""

    def pin() -> object:
        import fcntl
        import os
        import struct

        path = "/workspace/pinned"
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR)

        def flagged(flag: int) -> object:
            fcntl.ioctl(descriptor, 0x40086602, struct.pack("l", flag))  # FS_IOC_SETFLAGS
            return "set"

        answers = {
            name: attempt(lambda flag=flag: flagged(flag))
            for name, flag in (("immutable", 0x10), ("append only", 0x20))
        }
        os.unlink(path)
        return answers

    assert "set" not in (await sandbox.attack(pin)).values()


async def test_nobody_gets_ahead_of_the_hosts_other_processes(
    sandbox: Attacked, unguarded: Unguarded
) -> None:
    """Policy rule limits.cpus: no real-time class, no better nice value, no lower OOM score."""

    def hurry() -> object:
        import os

        def real_time() -> object:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
            return "real time"

        return {
            "fifo": in_child(real_time),
            "nice": in_child(lambda: os.nice(-10)),
            "oom": writable("/proc/self/oom_score_adj", b"-900"),
        }

    assert (await unguarded.attack(hurry))["nice"] in (-10, "EPERM")
    answers = await sandbox.attack(hurry)
    assert answers["fifo"] in ("EPERM", "EINVAL", "ENOSYS")
    if not sandbox.gvisor:  # where both order this sandbox's own processes alone
        assert answers["nice"] in ("EPERM", "EACCES")
        assert answers["oom"] != "ok"


async def test_a_crash_leaves_no_core_on_the_host(sandbox: Attacked) -> None:
    """Policy rule limits: a crash makes the host run no handler and write no file."""

    def crash() -> object:
        import os
        import signal

        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGSEGV)
        _, status = os.waitpid(pid, 0)
        return {"killed": os.WIFSIGNALED(status), "dumped": os.WCOREDUMP(status)}

    assert await sandbox.attack(crash) == {"killed": True, "dumped": False}
    assert "core" not in (await sandbox.shell("ls /workspace /tmp")).stdout


async def test_old_calls_that_only_attackers_use_are_gone(sandbox: Attacked) -> None:
    """Invariant 4: calls of another age answer as if the kernel had never had them."""

    def numbers() -> object:
        table = {
            "uselib": 134, "ustat": 136, "sysfs": 139, "_sysctl": 156, "create_module": 174,
            "get_kernel_syms": 177, "query_module": 178, "nfsservctl": 180, "getpmsg": 181,
            "afs_syscall": 183, "tuxcall": 184, "security": 185, "vserver": 236,
        }  # fmt: skip
        return {name: raw(number, 0, 0, 0) for name, number in table.items()} if X86_64 else {}

    answers = await sandbox.attack(numbers)
    assert not [name for name, answer in answers.items() if isinstance(answer, int)]
    assert set(answers.values()) <= {"ENOSYS", "EPERM"}
