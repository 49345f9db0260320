"""Attacks on what sessions share: the host's kernel, and the shares of a principal.

Each is small enough that the host stays well where no barrier is: what it asks for is refused, or
given in an amount that hurts nobody.
"""

from __future__ import annotations

import anyio

from .attacks import HOSTILE, Attack, Attacker, cell
from .neighbour import connected

NETLINK = """
import socket
held = []
for _ in range(32):
    try:
        one = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        one.setblocking(False)
        for number in range(100):  # RTM_GETLINK, a dump: answers that nobody reads
            one.send(b"\\x14\\0\\0\\0\\x12\\0\\x01\\x03" + number.to_bytes(4, "little") + bytes(8))
    except OSError:
        continue
    held.append(one)
"""
FILTERS = """
import ctypes, socket
code = ctypes.create_string_buffer(b"\\x06\\0\\0\\0\\xff\\xff\\0\\0")  # ret 65535
program = (1).to_bytes(8, "little") + ctypes.addressof(code).to_bytes(8, "little")
held = []
for _ in range(200):
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, 26, program)
    except OSError:
        pass
    held.append(one)
"""
BUFFERS = """
import socket
held = []
for _ in range(50):
    one, other = socket.socketpair()
    for end in (one, other):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        try:
            while end.send(bytes(65536)):
                pass
        except OSError:
            pass
    held += (one, other)
"""
HUGE = """
import mmap
for _ in range(16):
    try:
        mmap.mmap(-1, 2 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
    except OSError:
        pass
"""
FORKS = """
import os, signal, time
children = []
for _ in range(400):
    try:
        pid = os.fork()
    except OSError:
        continue
    if pid == 0:
        time.sleep(3)
        os._exit(0)
    children.append(pid)
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""
NAMES = """
import socket, threading
def ask(number):
    try:
        with socket.create_connection(("127.0.0.1", 3128), timeout=5) as way:
            way.sendall(f"CONNECT n{number}.silent.example:443 HTTP/1.1\\r\\n\\r\\n".encode())
            way.recv(4096)
    except OSError:
        pass
asking = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
for one in asking: one.start()
for one in asking: one.join()
"""


async def netlink_replies_that_nobody_reads(attacker: Attacker) -> None:
    """Sockets of the family that no session needs."""
    await cell(attacker, NETLINK)


async def filters_on_sockets(attacker: Attacker) -> None:
    """BPF by the back door."""
    await cell(attacker, FILTERS)


async def full_socket_buffers(attacker: Attacker) -> None:
    """Memory of the kernel's."""
    await cell(attacker, BUFFERS)


async def huge_pages(attacker: Attacker) -> None:
    """Memory that some hosts count nowhere."""
    await cell(attacker, HUGE)


async def many_processes(attacker: Attacker) -> None:
    """More children than the session may have."""
    await cell(attacker, FORKS)


async def names_that_nobody_answers(attacker: Attacker) -> None:
    """Questions to a resolver, all at once."""
    async with attacker.session("out") as session:
        await session.cell(NAMES)


async def more_sessions_than_the_quota(attacker: Attacker) -> None:
    """Eight at once, where four are allowed."""

    async def one() -> None:
        async with attacker.http() as http:
            opened = await http.post("/mcp/v1/sessions", json={"reuse": False})
            if opened.status_code == 201:
                await http.delete(f"/mcp/v1/sessions/{opened.json()['session_id']}")

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(one)


async def calls_that_are_given_up(attacker: Attacker) -> None:
    """Cells whose caller goes away."""
    async with attacker.session() as session:
        for _ in range(5):
            url = f"{attacker.base}/mcp/v1"
            with anyio.move_on_after(1):
                async with connected(url, attacker.token, source=HOSTILE) as client:
                    code = {"code": "import time; time.sleep(20)", **session.named}
                    await client.call_tool("execute_code", code)


HOST: tuple[Attack, ...] = (
    netlink_replies_that_nobody_reads,
    filters_on_sockets,
    full_socket_buffers,
    huge_pages,
    many_processes,
)
SHARES: tuple[Attack, ...] = (
    names_that_nobody_answers,
    more_sessions_than_the_quota,
    calls_that_are_given_up,
)
