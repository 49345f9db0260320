"""Attacks through the file operations: whatever a cell has made, an answer comes, and it is true.

Each test builds its trap from inside, then uses ``session.files`` as a caller would. Every
operation must answer within seconds: a wait without end is the attack's success.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable

import anyio
import psutil
import pytest

from sandbox.errors import FileError, InvalidRequest, SandboxError
from sandbox.files.files import Files

from .conftest import Attacked

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@pytest.fixture
async def files(sandbox: Attacked) -> AsyncIterator[Files]:
    """The file operations of the shared session, with a bound on all that a test does."""
    with anyio.fail_after(60):
        async with sandbox.session.use():
            yield sandbox.session.files


async def refusal(operation: Awaitable[object]) -> str:
    """The reason that an operation was refused for, within seconds."""
    with anyio.fail_after(10), pytest.raises(FileError) as caught:
        await operation
    return caught.value.reason


async def test_a_link_out_of_the_workspace_reaches_no_further_than_the_uid(
    sandbox: Attacked, files: Files
) -> None:
    """Invariant 3: symbolic links resolve inside the container, where the session's uid decides."""
    await sandbox.shell(
        "ln -sfn /etc/shadow shadow; ln -sfn /root rootdir; ln -sfn /etc/hostname name; "
        "ln -sfn / top; ln -sfn /proc/1/root/etc/shadow around; ln -sfn /proc/self/mem mem"
    )
    # gVisor's packaged version takes a link to / for all of the path behind it.
    through_root = () if sandbox.gvisor else ("top/etc/shadow",)
    for path in ("shadow", "around", "rootdir/x", *through_root):
        assert await refusal(files.read_bytes(path, MIB)) in ("permission_denied", "not_found"), (
            path
        )
    data, _ = await files.read_bytes("name", MIB)
    assert data.decode().strip() == "sandbox", "the container's own name, not the host's"
    for path in ("name", "top/etc/passwd", "top/opt/sandbox/x"):
        assert await refusal(files.write(path, b"x")) in ("permission_denied", "read_only"), path
    assert (await files.stat("shadow")).type == "symlink"


async def test_climbing_with_dots_stays_in_the_container(files: Files) -> None:
    """Invariant 3: ``..`` never names a path of the host."""
    for path in ("../../../../../../etc/hostname", "/workspace/../../etc/hostname"):
        data, _ = await files.read_bytes(path, MIB)
        assert data.decode().strip() == "sandbox"
    assert await refusal(files.write("../../../../etc/cron.d/x", b"x")) in (
        "read_only", "permission_denied", "not_found",
    )  # fmt: skip


async def test_loops_of_links_are_an_error(sandbox: Attacked, files: Files) -> None:
    """Invariant 3: a link to itself and a ring of links end at once."""
    await sandbox.shell("ln -sfn me me; ln -sfn b a; ln -sfn a b; mkdir -p ring; ln -sfn . ring/r")
    for path in ("me", "a", "me/x"):
        assert await refusal(files.read_bytes(path, MIB)) in ("invalid_name", "io_error"), path
    found = await files.list("ring", max_depth=32, limit=1000)
    assert found.total <= 2


async def test_fifos_sockets_and_devices_are_refused_without_waiting(
    sandbox: Attacked, files: Files
) -> None:
    """Invariant 3: nothing that could make an opener wait for ever is opened."""
    await sandbox.shell(
        "rm -f fifo sock; mkfifo fifo; ln -sfn /dev/zero zero; ln -sfn /dev/tty tty; "
        "ln -sfn fifo lf; "
        "python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('sock')\""
    )
    for path in ("fifo", "lf", "sock", "zero", "tty", "/dev/urandom", "/dev/ptmx", "/dev/stdin"):
        for operation in (files.read_bytes(path, MIB), files.edit(path, "a", "b")):
            reason = await refusal(operation)
            assert reason in ("not_a_file", "not_found", "permission_denied", "io_error"), path
        assert await refusal(files.write(path, b"x", append=True)) != "exists", path
    assert (await files.stat("fifo")).type == "fifo"
    assert {entry.type for entry in (await files.list(limit=1000)).entries} >= {"fifo", "socket"}
    assert await files.delete("fifo") == 1


async def test_a_sparse_terabyte_is_not_read(sandbox: Attacked, files: Files) -> None:
    """Invariant 3: what a file claims to hold does not decide how much the controller takes."""
    await sandbox.shell("rm -f huge; truncate -s 500M huge")
    before = psutil.Process().memory_info().rss
    assert await refusal(files.read_bytes("huge", MIB)) == "too_large"
    assert await refusal(files.edit("huge", "a", "b")) == "too_large"
    assert psutil.Process().memory_info().rss - before < 40 * MIB
    for path in ("/proc/self/mem", "/proc/kmsg", "/proc/self/pagemap"):
        with anyio.fail_after(10), pytest.raises(SandboxError):
            await files.read_bytes(path, MIB)
    await files.delete("huge")


async def test_a_file_that_never_ends_is_cut_off(sandbox: Attacked, files: Files) -> None:
    """Invariant 3: a file that grows as it is read ends at the reader's bound."""
    growing = "import os\nos.truncate('grows', 0) if os.path.exists('grows') else None\n"
    growing += "with open('grows', 'wb', 0) as f:\n"
    growing += " for _ in range(2000): f.write(bytes(65536))"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: sandbox.shell("python3 -", stdin=growing))
        outcome = set()
        with anyio.fail_after(60):
            while len(outcome - {"not_found"}) == 0:
                for _ in range(20):
                    try:
                        data, _ = await files.read_bytes("grows", MIB)
                        outcome.add(len(data) <= MIB)
                    except FileError as exc:
                        outcome.add(exc.reason)
        assert outcome <= {True, "too_large", "not_found"}
    await files.delete("grows")


async def test_a_tree_deeper_than_any_path_is_listed_and_deleted(
    sandbox: Attacked, files: Files
) -> None:
    """Invariant 3: three thousand levels are no recursion and no error of a path's length."""

    def dig() -> object:
        import os

        os.chdir("/workspace")
        os.mkdir("deep")
        os.chdir("deep")
        for _ in range(3000):
            os.mkdir("d" * 100)
            os.chdir("d" * 100)
        return True

    assert await sandbox.attack(dig)
    with anyio.fail_after(20):
        listed = await files.list("deep", max_depth=32, limit=10)
        assert listed.total <= 40
        assert await files.delete("deep", recursive=True) == 3001


async def test_odd_names_are_shown_safely_and_open_nothing_else(
    sandbox: Attacked, files: Files
) -> None:
    """Invariant 3: names with escapes, newlines or broken UTF-8 are data."""

    def make() -> object:
        import os

        os.makedirs("/workspace/odd", exist_ok=True)
        names = [b"new\nline", b"\x1b[2Jclear", b"\xff\xfe", b"-rf", b" ", b"~", b"a" * 255]
        names += ["\u202egpj.exe".encode(), b"\\xff", b"con\rrol", b"..."]
        for name in names:
            with open(os.path.join(b"/workspace/odd", name), "w") as stream:
                stream.write("x")
        return len(names)

    count = await sandbox.attack(make)
    found = await files.list("odd", limit=1000)
    assert found.total == count
    assert all(entry.name.encode() for entry in found.entries), "valid UTF-8"
    assert sum(entry.odd for entry in found.entries) == 1
    plain = [entry.path for entry in found.entries if not entry.odd]
    for path in plain:
        data, _ = await files.read_bytes(path, MIB)
        assert data == b"x"
    assert await files.delete("odd", recursive=True) == count + 1


@pytest.mark.parametrize(
    "path",
    ["nul\0byte", "surrogate\ud800", "a" * 5000, "/".join(["a" * 300] * 3), "x/" * 3000],
)
async def test_paths_that_cannot_be_are_refused_before_anything_runs(
    files: Files, path: str
) -> None:
    """Invariant 3: NUL, surrogates and endless paths are errors that change nothing."""
    for operation in (
        files.read_bytes(path, MIB),
        files.write(path, b"x"),
        files.stat(path),
        files.delete(path, recursive=True),
        files.mkdir(path),
        files.move("nothing", path),
    ):
        assert await refusal(operation) in ("invalid_name", "not_found")


async def test_a_directory_of_a_hundred_thousand_names_is_bounded(
    sandbox: Attacked, files: Files
) -> None:
    """Invariant 3: a listing says that it is not complete, within bounds of time and memory."""

    def crowd() -> object:
        import os

        os.mkdir("/workspace/crowd")
        for number in range(55_000):
            os.close(os.open(f"/workspace/crowd/{number}-{'n' * 60}", os.O_CREAT))
        return True

    assert await sandbox.attack(crowd)
    before = psutil.Process().memory_info().rss
    found = await files.list("crowd", limit=1000)
    assert len(found.entries) <= 1000
    assert found.truncated
    assert psutil.Process().memory_info().rss - before < 40 * MIB
    await files.delete("crowd", recursive=True)


async def test_deleting_follows_no_link(sandbox: Attacked, files: Files) -> None:
    """Invariant 2: a recursive delete removes links themselves, and nothing behind them."""
    await sandbox.shell(
        "mkdir -p trap kept; echo 1 > kept/file; ln -sfn ../kept trap/l; ln -sfn / trap/t"
    )
    assert await files.delete("trap", recursive=True) == 3
    data, _ = await files.read_bytes("kept/file", MIB)
    assert data == b"1\n"


async def test_swapping_a_file_for_a_link_wins_nothing(sandbox: Attacked, files: Files) -> None:
    """Invariant 3: a race between the check and the opening ends in an error or the right bytes."""
    swap = (
        "import os, time\n"
        "end = time.monotonic() + 4\n"
        "while time.monotonic() < end:\n"
        " open('s.tmp', 'w').write('mine'); os.replace('s.tmp', 'swapped')\n"
        " os.symlink('/etc/shadow', 's.tmp'); os.replace('s.tmp', 'swapped')\n"
        " os.mkfifo('s.tmp'); os.replace('s.tmp', 'swapped')\n"
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: sandbox.shell("python3 -", stdin=swap))
        outcomes: set[str] = set()
        end = time.monotonic() + 4
        while time.monotonic() < end:
            with anyio.fail_after(10):
                try:
                    data, _ = await files.read_bytes("swapped", MIB)
                    outcomes.add("mine" if data in (b"mine", b"") else data.decode())
                except FileError as exc:
                    outcomes.add(exc.reason)
    assert outcomes <= {"mine", "permission_denied", "not_a_file", "not_found", "io_error"}
    assert "mine" in outcomes, "the race took place"
    await files.delete("swapped")


async def test_a_write_into_a_full_disk_leaves_nothing_behind(
    victim: Attacked,
) -> None:
    """Invariant 3: a half-written file is no file, and what stood there stays."""
    async with victim.session.use():
        files = victim.session.files
        await files.write("kept.txt", b"before")
        await victim.shell("for n in 1 2 3; do head -c 400M /dev/zero > full-$n || break; done")
        assert await refusal(files.write("kept.txt", bytes(4 * MIB))) == "no_space"
        data, _ = await files.read_bytes("kept.txt", MIB)
        assert data == b"before"
        assert (await files.list(pattern="*.part", limit=100)).total == 0
        assert (await victim.shell("ls -A | grep -c part")).stdout.strip() == "0"


async def test_pages_and_modes_out_of_range_are_refused(files: Files) -> None:
    """Invariant 3: numbers of callers are bounded too."""
    for operation in (
        files.list(limit=0),
        files.list(limit=10**9),
        files.list(start_index=-1),
        files.write("x", b"", mode=0o4755),
        files.read_bytes("x", 10, offset=-1),
    ):
        with pytest.raises(InvalidRequest):
            await operation
