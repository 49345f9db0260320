"""What does not carry over to a branch is found before it is made, and named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.supervisor.pykernel import openfiles
from sandbox.supervisor.pykernel.blockers import Blocker

from ...support.barekernel import BareKernel

NAMED = {
    "a thread": (
        "import threading, time\n"
        "def work():\n"
        "    while True: time.sleep(1)\n"
        "threading.Thread(target=work, name='worker', daemon=True).start()",
        "thread",
        "'worker'",
        "in work",
    ),
    "a thread without a name": (
        "import _thread, time\n_thread.start_new_thread(lambda: time.sleep(60), ())",
        "thread",
        "without a name",
    ),
    "a thread that runs no Python": (
        "import _thread, time\n_thread.start_new_thread(time.sleep, (60,))",
        "native thread",
        "tid",
    ),
    "an executor at work": (
        "import time\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "pool = ThreadPoolExecutor(2, 'pool'); pool.submit(time.sleep, 60)",
        "thread",
        "'pool_0'",
    ),
    "a thread of a library": (
        "import faulthandler; faulthandler.dump_traceback_later(600)",
        "native thread",
        "tid",
    ),
    "a child process": (
        "import subprocess; child = subprocess.Popen(['sleep', '61'])",
        "process",
        "'sleep 61'",
    ),
    "a child that was not waited for": (
        "import os; pid = os.fork()\nif pid == 0: os._exit(0)\n"
        "os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)",
        "process",
        "was not waited for",
    ),
    "a process in the background": (
        "import os, resource, subprocess\n"
        "resource.setrlimit(resource.RLIMIT_RSS, (123 << 20, 123 << 20))\n"
        "subprocess.run(['sh', '-c', 'sleep 62 >/dev/null 2>&1 &'])",
        "process",
        "sleep 62",
    ),
    "a connected socket": (
        "import socket; server = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(server.getsockname())\n"
        "accepted = server.accept(); server.close()",
        "socket",
        "connected to 127.0.0.1:",
    ),
    "a socket that listens": (
        "import socket; server = socket.create_server(('127.0.0.1', 0))",
        "socket",
        "listens on 127.0.0.1:",
    ),
    "a socket that is not connected": (
        "import socket; made = socket.socket()",
        "socket",
        "not connected",
    ),
    "a pair of sockets": (
        "import socket; pair = socket.socketpair()",
        "socket",
        "an unnamed Unix socket",
    ),
    "a task that waits for a socket": (
        "import asyncio\n"
        "async def serve():\n"
        "    return await asyncio.start_server(lambda *_: None, '127.0.0.1', 0)\n"
        "server = loop.run_until_complete(serve())",
        "socket",
        "which an asyncio task waits for",
    ),
    "a file that is written": ("file = open('{path}', 'w')", "open file", "{path}"),
    "a log that is appended to": (
        "import logging; logging.getLogger().addHandler(logging.FileHandler('{path}'))",
        "open file",
        "{path}",
    ),
    "a temporary file": (
        "import tempfile; file = tempfile.TemporaryFile()",
        "open file",
        "(deleted)",
    ),
    "a database": (
        "import sqlite3; base = sqlite3.connect('{path}'); base.execute('create table t (x)')",
        "open file",
        "{path}",
    ),
    "a database that is only read": (
        "import sqlite3; base = sqlite3.connect('{path}'); base.execute('create table t (x)')\n"
        "base.close()\n"
        "base = sqlite3.connect('file:{path}?mode=ro', uri=True)\n"
        "base.execute('select * from t').fetchall()",
        "database",
        "{path}",
    ),
    "a mapped file": (
        "import mmap\nwith open('{path}', 'w+b') as file:\n"
        "    file.write(bytes(4096)); file.flush(); mapped = mmap.mmap(file.fileno(), 0)",
        "shared memory",
        "{path}",
    ),
    "a value of multiprocessing": (
        "import multiprocessing; value = multiprocessing.Value('i', 1)",
        "shared memory",
        "/dev/shm/",
    ),
    "shared memory with a name": (
        "from multiprocessing import shared_memory\n"
        "memory = shared_memory.SharedMemory(create=True, size=4096); memory.unlink()",
        "shared memory",
        "/dev/shm/psm_",
    ),
    "much anonymous shared memory": (
        "import mmap; memory = mmap.mmap(-1, 32 << 20)",
        "shared memory",
        "32 MiB",
    ),
    "a file in memory": (
        "import os; fd = os.memfd_create('mine')",
        "shared memory",
        "/memfd:mine",
    ),
    "a pipe": ("import os; ends = os.pipe()", "pipe", "descriptor"),
    "a terminal": ("import pty; ends = pty.openpty()", "terminal", "/dev/pt"),
    "an epoll": ("import select; epoll = select.epoll()", "descriptor", "eventpoll"),
    "an eventfd": ("import os; fd = os.eventfd(0)", "descriptor", "eventfd"),
    "a subinterpreter": (
        "import _xxsubinterpreters as interpreters; made = interpreters.create()",
        "interpreter",
        "subinterpreter 1",
    ),
}
CARRIED = {
    "an executor without work": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "pool = ThreadPoolExecutor(2); list(pool.map(str, range(4)))",
        "_ = list(pool.map(str, range(4)))",
        ["0", "1", "2", "3"],
    ),
    "the executor of asyncio.to_thread": (
        "import asyncio; loop.run_until_complete(asyncio.to_thread(str, 1))",
        "_ = loop.run_until_complete(asyncio.to_thread(str, 1))",
        "1",
    ),
    "a socket that nobody can reach": (
        "import socket\nclass Cycle: pass\n"
        "cycle = Cycle(); cycle.own = cycle; cycle.socket = socket.socketpair(); del cycle",
        "_ = 1",
        1,
    ),
    "a database in memory": (
        "import sqlite3; base = sqlite3.connect(':memory:'); base.execute('create table t (x)')",
        "base.execute('insert into t values (1)'); _ = base.execute('select * from t').fetchall()",
        [[1]],
    ),
    "a harmless device": ("null = open('/dev/null', 'w')", "_ = null.write('x')", 1),
    "a closed loop": ("import asyncio; asyncio.new_event_loop().close()", "_ = 1", 1),
    "a file that is mapped to be read": (
        "import mmap\nwith open('/etc/passwd', 'rb') as file:\n"
        "    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)",
        "_ = mapped[:5].decode()",
        "root:",
    ),
}


@pytest.fixture
def kernel() -> Iterator[BareKernel]:
    """A kernel."""
    made = BareKernel.start()
    yield made
    made.kill()


@pytest.mark.parametrize("what", NAMED)
def test_a_branch_is_refused_with_the_name_of(
    what: str, kernel: BareKernel, tmp_path: Path
) -> None:
    source, kind, *words = NAMED[what]
    path = str(tmp_path / "file")
    kernel.run("before = 1\n" + source.replace("{path}", path))
    found = [each for each in kernel.refused() if each["kind"] == kind]
    said = " ".join(each["what"] for each in found)
    assert all(word.replace("{path}", path) in said for word in words), said
    assert all(each["remedy"] for each in found)
    assert kernel.run("_ = before") == 1


@pytest.mark.parametrize("what", CARRIED)
def test_a_branch_is_made_in_spite_of(what: str, kernel: BareKernel) -> None:
    source, then, expected = CARRIED[what]
    kernel.run(source)
    branch = kernel.branch()
    assert branch.run(then) == expected
    assert kernel.run(then) == expected
    branch.kill()


def test_a_refused_branch_can_be_made_once_its_blockers_are_gone(kernel: BareKernel) -> None:
    kernel.run("import socket, subprocess; child = subprocess.Popen(['cat'], stdin=-1)")
    assert {each["kind"] for each in kernel.refused()} == {"process", "pipe"}
    kernel.run("child.communicate()")
    branch = kernel.branch()
    assert branch.run("_ = child.returncode") == 0
    branch.kill()


def test_blockers_are_few_and_short_however_many_there_are(kernel: BareKernel) -> None:
    kernel.run("import os; ends = [os.pipe() for _ in range(100)]")
    found = kernel.refused()
    assert len(found) == 20
    assert all(len(text) <= 200 for each in found for text in each.values())


@pytest.mark.parametrize("path", ["/dev/nvidia0", "/dev/nvidiactl", "/dev/dri/renderD128"])
def test_a_gpu_that_is_in_use_is_named(path: str) -> None:
    found = openfiles._device(7, path)
    assert isinstance(found, Blocker)
    assert found.kind == "gpu"
    assert path in found.what
