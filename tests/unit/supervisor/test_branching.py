"""Branches of a live process, compared with a model, and what they have of their own."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator

import pytest

from ...support.barekernel import BareKernel, Checkpoint
from ...support.branchmodel import BEGIN, FIRST, sequence, sequences

FEW = 60


@pytest.fixture
def kernel() -> Iterator[BareKernel]:
    """A kernel."""
    made = BareKernel.start()
    yield made
    made.kill()


@pytest.fixture(scope="module")
def fresh() -> Iterator[BareKernel]:
    """A kernel that has run nothing but the model's first cell."""
    made = BareKernel.start()
    made.run(BEGIN)
    yield made
    made.kill()


def play(first: BareKernel, seed: int) -> None:
    """Do a sequence with a branch of this kernel; each answer must be the model's."""
    kernels = {FIRST: first.branch(reseed=False)}
    kept: dict[tuple[str, str], Checkpoint] = {}
    try:
        for step in sequence(seed):
            kernel = kernels[step.kernel]
            if step.kind == "run":
                assert kernel.run(step.source) == step.expected, (seed, step)
            elif step.kind == "branch":
                kernels[step.name] = kernel.branch(reseed=False)
            elif step.kind == "checkpoint":
                kept[step.kernel, step.name] = kernel.checkpoint()
            elif step.kind == "rollback":
                kernels[step.kernel] = kept[step.kernel, step.name].thaw()
                kernel.kill()
            elif step.kind == "drop":
                assert kept.pop((step.kernel, step.name)).drop() == 0
            else:
                kernels.pop(step.kernel).kill()
                for key in [key for key in kept if key[0] == step.kernel]:
                    kept.pop(key).drop()
    finally:
        for kernel in kernels.values():
            kernel.kill()
        for checkpoint in kept.values():
            checkpoint.drop()


def test_random_sequences_of_branches_and_rollbacks_differ_in_nothing_from_a_model(
    fresh: BareKernel,
) -> None:
    for seed in range(sequences(FEW)):
        play(fresh, seed)


def test_a_branch_and_its_kernel_do_not_see_what_the_other_does(kernel: BareKernel) -> None:
    kernel.run("x = [1]")
    branch = kernel.branch()
    kernel.run("x.append('kernel')")
    branch.run("x.append('branch')")
    further = branch.branch()
    further.run("x.append('further')")
    assert kernel.run("_ = x") == [1, "kernel"]
    assert branch.run("_ = x") == [1, "branch"]
    assert further.run("_ = x") == [1, "branch", "further"]
    branch.kill()
    assert further.run("_ = len(x)") == 3
    further.kill()


def test_what_was_printed_before_the_branch_appears_once(kernel: BareKernel) -> None:
    kernel.run("import ctypes; print('before', end=''); ctypes.CDLL(None).printf(b'c')")
    branch = kernel.branch()
    branch.run("print('branch', flush=True)")
    kernel.run("print('kernel', flush=True)")
    assert kernel.printed() == "beforeckernel\n"
    assert branch.printed() == "branch\n"
    branch.kill()


def test_random_numbers_differ_in_a_branch_unless_they_are_asked_to_be_the_same(
    kernel: BareKernel,
) -> None:
    kernel.run("import random; random.seed(1); random.random()")
    same, one, other = kernel.branch(reseed=False), kernel.branch(), kernel.branch()
    drawn = [each.run("_ = random.random()") for each in (kernel, same, one, other)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3
    for each in (same, one, other):
        each.kill()


def test_a_rollback_can_be_repeated_and_a_dropped_checkpoint_ends(kernel: BareKernel) -> None:
    kernel.run("x = {'a': 1}")
    checkpoint = kernel.checkpoint()
    kernel.run("x.clear()")
    for _ in range(3):
        thawed = checkpoint.thaw()
        assert thawed.run("x['b'] = 2; _ = x") == {"a": 1, "b": 2}
        thawed.kill()
    thawed = checkpoint.thaw()
    assert checkpoint.drop() == 0
    assert thawed.run("_ = x") == {"a": 1}
    again = thawed.checkpoint()
    thawed.kill()
    last = again.thaw()
    assert last.run("_ = x") == {"a": 1}
    last.kill()
    again.drop()


def test_a_kernels_end_is_seen_though_a_checkpoint_of_it_lives(kernel: BareKernel) -> None:
    branch = kernel.branch()
    checkpoint = branch.checkpoint()
    os.kill(branch.pid, 9)
    os.waitpid(branch.pid, 0)
    for end in (branch.pair.fileno(), branch.output, branch.errors):
        assert select.select([end], [], [], 10)[0]
        assert os.read(end, 1) == b""
    branch.close()
    thawed = checkpoint.thaw()
    assert thawed.run("_ = 1") == 1
    thawed.kill()
    checkpoint.drop()


def test_a_branch_has_a_session_a_number_and_a_mark_of_its_own(kernel: BareKernel) -> None:
    ask = (
        "import os, resource, threading;"
        "_ = [os.getpid(), os.getsid(0), os.getpgid(0), threading.main_thread().native_id,"
        " resource.getrlimit(resource.RLIMIT_RSS)]"
    )
    branch = kernel.branch()
    pid, *own, mark = branch.run(ask)
    assert own == [pid, pid, pid]
    assert pid == branch.pid != kernel.pid
    assert mark[0] == mark[1] != kernel.run(ask)[-1][1]
    branch.kill()


def test_tasks_timers_and_loops_go_on_on_both_sides(kernel: BareKernel) -> None:
    kernel.run(
        "import asyncio, signal\n"
        "other = asyncio.new_event_loop()\n"
        "seen = []\n"
        "async def count():\n"
        "    while True:\n"
        "        await asyncio.sleep(0.005)\n"
        "        seen.append(1)\n"
        "task = loop.create_task(count())\n"
        "signal.signal(signal.SIGALRM, lambda *_: seen.append('alarm'))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.3)"
    )
    branch = kernel.branch()
    woken = "_ = other.run_until_complete(other.run_in_executor(None, lambda: 7))"
    for each in (kernel, branch):
        each.run("seen[:] = [what for what in seen if what == 'alarm']")
        until = time.monotonic() + 10
        while not {1, "alarm"} <= set(each.run("_ = seen")) and time.monotonic() < until:
            select.select([], [], [], 0.005)
        assert {1, "alarm"} <= set(each.run("_ = seen"))
        assert each.run(woken) == 7
        assert each.run("_ = loop.run_until_complete(asyncio.to_thread(lambda: 8))") == 8
    branch.run("task.cancel()")
    assert kernel.run("_ = task.cancelled() or task.cancelling()") == 0
    branch.kill()


def test_a_file_that_is_read_goes_on_at_its_own_place_on_each_side(
    kernel: BareKernel, tmp_path: os.PathLike[str]
) -> None:
    path = os.path.join(tmp_path, "lines")
    with open(path, "w") as file:
        file.write("".join(f"{number:03}\n" for number in range(100)))
    kernel.run(f"import os; file = open({path!r}, buffering=1); fd = file.fileno()")
    kernel.run(f"file.readline(); raw = os.open({path!r}, os.O_RDONLY); os.read(raw, 4)")
    os.unlink(path)
    branch = kernel.branch()
    checkpoint = kernel.checkpoint()
    assert kernel.run("_ = os.read(raw, 4).decode()") == "001\n"
    assert branch.run("_ = os.read(raw, 8).decode()") == "001\n002\n"
    assert kernel.run("_ = os.read(raw, 4).decode()") == "002\n"
    for _ in range(2):
        thawed = checkpoint.thaw()
        assert thawed.run("_ = [os.read(raw, 4).decode(), file.readline()]") == ["001\n"] * 2
        thawed.kill()
    checkpoint.drop()
    branch.kill()


def test_a_file_that_a_library_closes_in_a_fork_stays_closed(kernel: BareKernel) -> None:
    kernel.run(
        "import os; file = open('/etc/passwd'); os.register_at_fork(after_in_child=file.close)"
    )
    branch = kernel.branch()
    assert branch.run("_ = file.closed") is True
    assert kernel.run("_ = file.read(5)") == "root:"
    branch.kill()


def test_locks_and_anonymous_shared_memory_become_each_sides_own(kernel: BareKernel) -> None:
    kernel.run(
        "import mmap, multiprocessing, os\n"
        "lock = multiprocessing.Lock(); memory = mmap.mmap(-1, 4096); memory[:3] = b'abc'"
    )
    checkpoint = kernel.checkpoint()
    branch = kernel.branch()
    kernel.run("lock.acquire(); memory[:3] = b'xyz'")
    in_child = (
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    memory[3:6] = b'def'; lock.acquire(); os._exit(0)\n"
        "os.waitpid(pid, 0); _ = [lock.acquire(timeout=0), memory[:6].decode()]"
    )
    assert branch.run(in_child) == [False, "abcdef"]
    for _ in range(2):
        thawed = checkpoint.thaw()
        assert thawed.run(in_child) == [False, "abcdef"]
        thawed.kill()
    assert kernel.run("lock.release(); _ = memory[:3].decode()") == "xyz"
    checkpoint.drop()
    branch.kill()


def test_a_fork_that_cannot_become_a_kernel_leaves_nothing_and_changes_nothing(
    kernel: BareKernel,
) -> None:
    kernel.run(
        "x = 1\n"
        "import os, resource, random\n"
        "os.setresuid(12345, 12345, 12345)\n"
        "resource.setrlimit(resource.RLIMIT_RSS, (1, 1))"
    )
    ask = "_ = [x, len(os.listdir('/proc/self/fd'))]"
    before = kernel.run(ask)
    answer, made = kernel._ask({"branch": "live"})
    assert made is None
    assert "resident memory" in answer["failed"]
    assert kernel.run(ask) == before
    children = f"/proc/{kernel.pid}/task/{kernel.pid}/children"
    with open(children) as file:
        assert not file.read().split()
