"""Attacks on the time and the memory of a controller, as a hostile principal makes them.

Each is a coroutine of an :class:`Attacker`, bounded in what it sends and in how long it lasts, so
that it is over soon also where nothing stops it. ``tests/security/test_neighbour.py`` runs each
beside a neighbour, ``scripts/storm.py`` all of them in random order.

What a cell does is proved by the word that it prints last, or by the truth about its end: a session
that goes too far may be ended, and its caller is then told so.
"""

from __future__ import annotations

import resource
import socket
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx2
from mcp import Client, MCPError

from .calls import greeting
from .neighbour import PATIENCE_S, connected

HOSTILE = "127.0.0.2"
"""Where attackers call from: an address of loopback that is nobody else's."""
SENT = "all of it was sent"
ENDED = frozenset({"session_lost", "link_lost", "not_found", "too_much_work"})
"""What a caller may be told of a session that went too far."""

# Runs in a kernel: puts a message on its channel of outputs with whatever content.
PUBLISH = """
import json
kernel = get_ipython().kernel
def publish(kind, content):
    kernel.session.send(kernel.iopub_socket, kind, content, parent=kernel.get_parent())
"""
COMMAS = """
publish("display_data", b',' * 250_001 + b'\\\\"' * 15_000)
"""
DISPLAYS = """
for _ in range(4000):
    publish("display_data", {"data": {"text/plain": ""}, "metadata": {},
                             "transient": {"display_id": "one"}})
publish("update_display_data", {"data": {"application/json": ["x" * (7 << 20)]}, "metadata": {},
                                "transient": {"display_id": "one"}})
"""
BACKSPACES = """
publish("stream", {"name": "stdout", "text": "x" * 16_000})
for _ in range(4000):
    publish("stream", {"name": "stdout", "text": chr(8)})
publish("stream", {"name": "stdout", "text": chr(10)})
"""
BRACKETS = """
publish("display_data", {"data": {"application/json": [[]] * 60_000}, "metadata": {},
                         "transient": {}})
"""
PRINTS = """
import time
end = time.monotonic() + 4
while time.monotonic() < end:
    print("flood" * 200)
"""
PICTURES = """
import base64, time
end = time.monotonic() + 4
while time.monotonic() < end:
    publish("display_data", {"data": {"image/png": "A" * 100_000, "text/html": "<b>" * 30_000},
                             "metadata": {}, "transient": {}})
"""
RECORDS = """
import socket, time
def records():
    hello = b"\\x01" + (30_000).to_bytes(3, "big") + bytes(8_000)
    way = socket.create_connection(("127.0.0.1", 3128), timeout=10)
    way.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    way.sendall(f"CONNECT {TARGET} HTTP/1.1\\r\\nHost: {TARGET}\\r\\n\\r\\n".encode())
    assert b" 200 " in way.recv(4096)
    end = time.monotonic() + 15
    try:
        for number in range(len(hello)):
            way.sendall(b"\\x16\\x03\\x01\\x00\\x01" + hello[number : number + 1])
            if number % 4 == 3:
                time.sleep(0.0002)
            if time.monotonic() > end:
                break
    except OSError:
        pass  # it is cut off, as it should be
records()
"""
LIAR = r"""
import json, os, selectors, signal, struct, sys, time

HEADER = struct.Struct("!BBIH")

def supervisor():
    for name in sorted(filter(str.isdigit, os.listdir("/proc")), key=int):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as stream:
                words = stream.read().split(b"\0")
        except OSError:
            continue
        if b"/opt/sandbox" in words and not words[0].endswith(b"init"):
            return int(name)

time.sleep(1)  # the call that started this is answered first
pid = supervisor()
os.kill(pid, signal.SIGSTOP)
readers, writers = {}, {}
for name in os.listdir(f"/proc/{pid}/fd"):
    path = f"/proc/{pid}/fd/{name}"
    if os.readlink(path).startswith("pipe:"):
        with open(f"/proc/{pid}/fdinfo/{name}") as lines:
            flags = int(next(line for line in lines if line.startswith("flags:")).split()[1], 8)
        (writers if flags & os.O_WRONLY else readers)[int(name)] = path
# The link's two were handed over together.
number = max(number for number in readers if number + 1 in writers)
reader = os.open(readers[number], os.O_RDONLY)
writer = os.open(writers[number + 1], os.O_WRONLY)
with open("/workspace/took-over", "w") as note:
    note.write("yes")

def frame(kind, stream=0, payload=b"", tag=0):
    return HEADER.pack(kind, tag, stream, len(payload)) + payload

buffer, credit, reading = b"", {}, set()
os.set_blocking(reader, False)
os.set_blocking(writer, False)
pending, end = b"", time.monotonic() + 20
while time.monotonic() < end:
    try:
        buffer += os.read(reader, 1 << 16)
    except BlockingIOError:
        time.sleep(0.001)
    while len(buffer) >= 8:
        kind, tag, stream, length = HEADER.unpack_from(buffer)
        if len(buffer) < 8 + length:
            break
        payload, buffer = buffer[8 : 8 + length], buffer[8 + length :]
        if kind == 1:  # OPEN
            request = json.loads(payload)
            if request.get("op") == "file.read":
                credit[stream] = credit.get(stream, 0) + 256 * 1024
                stat = {"path": "/workspace/f", "name": "f", "type": "file", "size": 10,
                        "mode": 420, "mtime": 1.0, "etag": "x"}
                told = json.dumps(stat).encode()
                pending += frame(2, stream, told)
                credit[stream] -= len(told) + 64
                reading.add(stream)
        elif kind == 3 and stream in credit:  # CREDIT
            credit[stream] += struct.unpack("!I", payload)[0]
        elif kind == 5:
            reading.discard(stream)
        elif kind == 6:  # PING
            pending += frame(7, 0, payload)
    for stream in reading:
        while credit[stream] >= 65472 + 64 and len(pending) < 1 << 20:
            pending += frame(2, stream, b"a" * 65472, 1)
            credit[stream] -= 65472 + 64
    try:
        pending = pending[os.write(writer, pending) :] if pending else b""
    except BlockingIOError:
        pass
"""


@dataclass(frozen=True)
class Session:
    """One session of an attacker."""

    attacker: Attacker
    session_id: str
    client: Client

    @property
    def named(self) -> dict[str, str]:
        return {"session_id": self.session_id}

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool; its result, or the error that it was answered with."""
        given = arguments if "execution_id" in arguments else {**self.named, **arguments}
        return answer(await self.client.call_tool(tool, given))

    async def cell(self, code: str, timeout_s: float = 60) -> str:
        """Run a cell to its end, behind ``PUBLISH``; what it printed, which ends in ``SENT``.

        Empty when the session was ended instead.
        """
        text = PUBLISH + textwrap.dedent(code) + f"\nprint({SENT!r})\n"
        result = await self.call("execute_code", code=text, timeout=timeout_s, wait=0)
        while result.get("status") == "running":
            result = await self.call("get_execution", execution_id=result["execution_id"], wait=10)
        if result.get("code") in ENDED or result.get("status") in ("lost", "died"):
            return ""
        printed = result["text"]
        assert SENT in printed, result
        return printed


def answer(result: Any) -> dict[str, Any]:
    """A tool's result, or the error that stands in its place."""
    about = (result.meta or {}).get("io.sandbox/error")
    said = "\n".join(block.text for block in result.content if block.type == "text")
    return about or result.structured_content or {"code": "refused", "message": said}


@dataclass(frozen=True)
class Attacker:
    """A hostile principal.

    Args:
        base: Where the controller is.
        token: Of all scopes.
        weakest: Another of its tokens, that may read files and nothing else.
        target: An ``address:port`` to which the policy ``out`` leads.
    """

    base: str
    token: str
    weakest: str
    target: str

    def http(self, token: str = "") -> httpx2.AsyncClient:
        """An HTTP client with a token."""
        return httpx2.AsyncClient(
            base_url=self.base,
            transport=httpx2.AsyncHTTPTransport(local_address=HOSTILE),
            headers={"Authorization": f"Bearer {token or self.token}"},
            timeout=PATIENCE_S,
        )

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool of no session; its result, or the error that it was answered with."""
        url = f"{self.base}/mcp/v1"
        async with connected(url, self.token, source=HOSTILE) as client:
            return answer(await client.call_tool(tool, arguments))

    @asynccontextmanager
    async def session(self, policy: str = "", workspace: str = "") -> AsyncIterator[Session]:
        """A session of its own for the time of a block."""
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(self.http())
            wanted = {"reuse": False, "policy": policy, "workspace": workspace}
            opened = await http.post("/mcp/v1/sessions", json=wanted)
            assert opened.status_code == 201, opened.text
            session_id = opened.json()["session_id"]
            client = await stack.enter_async_context(
                connected(f"{self.base}/mcp/v1", self.token, source=HOSTILE)
            )
            try:
                yield Session(self, session_id, client)
            finally:
                with (
                    anyio.CancelScope(shield=True),
                    anyio.move_on_after(60),
                    suppress(httpx2.TransportError),  # its controller was killed
                ):
                    await http.delete(f"/mcp/v1/sessions/{session_id}")


async def cell(attacker: Attacker, code: str) -> None:
    """What most of the attacks are: a cell that publishes something."""
    async with attacker.session() as session:
        await session.cell(code)


async def a_message_of_commas_and_quotes(attacker: Attacker) -> None:
    """280 kB that a regular expression takes seconds for."""
    await cell(attacker, COMMAS)


async def an_update_of_thousands_of_displays(attacker: Attacker) -> None:
    """One update of 7 MiB that is shown at four thousand places."""
    await cell(attacker, DISPLAYS)


async def backspaces_over_a_long_line(attacker: Attacker) -> None:
    """Thousands of messages of one character, each of which changes 16 kB."""
    await cell(attacker, BACKSPACES)


async def a_flood_of_prints(attacker: Attacker) -> None:
    """As many lines as go through in four seconds."""
    await cell(attacker, PRINTS)


async def a_flood_of_pictures(attacker: Attacker) -> None:
    """As many pictures and pages as go through in four seconds."""
    await cell(attacker, PICTURES)


async def a_flood_of_a_command(attacker: Attacker) -> None:
    """As much as a command writes in four seconds."""
    async with attacker.session() as session:
        result = await session.call("run_command", command="yes flood", timeout=4)
        assert result.get("status") == "timeout" or result.get("code") in ENDED, result


async def a_greeting_of_records_of_a_byte(attacker: Attacker) -> None:
    """A ClientHello of which every byte comes in a TLS record of its own."""
    async with attacker.session("out") as session:
        await session.cell(f"TARGET = {attacker.target!r}\n{RECORDS}")


async def an_edit_of_every_line(attacker: Attacker) -> None:
    """A file of four million lines, each of which changes."""
    async with attacker.session() as session:
        await session.cell("open('short', 'w').write('a\\n' * 4_000_000)")
        result = await session.call(
            "edit_file", path="short", old_string="a", new_string="b", replace_all=True
        )
        assert result.get("replacements") == 4_000_000 or result.get("code"), result


async def a_call_with_unknown_arguments(attacker: Attacker) -> None:
    """195,000 arguments that the tool does not have, with a token that may hardly do a thing."""
    arguments = {"path": "x", **{f"pth{number:06}": 1 for number in range(195_000)}}
    async with connected(f"{attacker.base}/mcp/v1", attacker.weakest, source=HOSTILE) as client:
        for _ in range(2):
            try:
                result = await client.call_tool("read_file", arguments)
            except MCPError:
                continue  # the body as a whole was refused
            assert result.is_error, result


async def a_supervisor_that_lies(attacker: Attacker) -> None:
    """Code that takes over the link, and streams without end what it called a file of 10 bytes."""
    async with attacker.session() as session:
        await session.call("write_file", path="liar.py", content=LIAR)
        await session.call("write_file", path="f", content="0123456789")
        await session.cell(
            "import subprocess, sys\n"
            "subprocess.Popen([sys.executable, '/workspace/liar.py'], start_new_session=True,"
            " stderr=open('/workspace/fault', 'w'))"
        )
        await anyio.sleep(3)  # its own delay, and some
        with anyio.move_on_after(20):
            result = await session.call("read_file", path="f")
            assert result.get("content", "") != "0123456789", "nothing was taken over"


async def results_of_empty_lists(attacker: Attacker) -> None:
    """Cells whose result is JSON of 60,000 empty lists, all of which are kept."""
    async with attacker.session() as session:
        for _ in range(80):
            if not await session.cell(BRACKETS):
                break


async def a_flood_of_greetings(attacker: Attacker) -> None:
    """MCP sessions by the thousand, none of which is ever used."""
    hello = greeting("2025-11-25")
    accept = {"Accept": "application/json, text/event-stream"}
    statuses: list[int] = []

    async def greet(http: httpx2.AsyncClient) -> None:
        for _ in range(GREETINGS // 8):
            greeted = await http.post("/mcp/v1", json=hello, headers=accept)
            statuses.append(greeted.status_code)

    async with attacker.http() as http, anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(greet, http)
    assert len(statuses) == GREETINGS // 8 * 8
    assert set(statuses) <= {200, 429, 503}, set(statuses)


GREETINGS = 2000


async def half_requests_without_a_token(attacker: Attacker) -> None:
    """1,200 connections that begin a request and say no more."""
    parts = urlsplit(attacker.base)
    address = (parts.hostname or "", parts.port or 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    held: list[socket.socket] = []

    def open_all() -> None:
        for _ in range(1200):
            try:
                one = socket.create_connection(address, timeout=2, source_address=(HOSTILE, 0))
                held.append(one)
                one.sendall(b"POST /mcp/v1 HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            except OSError:
                pass  # it is refused, as it may be

    try:
        await anyio.to_thread.run_sync(open_all)
        assert held
        await anyio.sleep(4)  # for so long they are held
    finally:
        for one in held:
            one.close()


async def a_workspace_that_is_large(attacker: Attacker) -> None:
    """A named workspace of 200 MB and 20,000 files, deleted."""
    async with attacker.session(workspace="large") as session:
        await session.cell(
            "import os\n"
            "for number in range(20_000): open(f'f{number}', 'w').close()\n"
            "open('large', 'wb').write(os.urandom(1 << 20) * 200)",
        )
    async with attacker.http() as http:
        with anyio.fail_after(120):
            while (await http.delete("/mcp/v1/workspaces/large")).status_code == 409:
                await anyio.sleep(0.2)  # it is being saved


Attack = Callable[[Attacker], Awaitable[None]]

TIME: tuple[Attack, ...] = (
    a_message_of_commas_and_quotes,
    an_update_of_thousands_of_displays,
    backspaces_over_a_long_line,
    a_flood_of_prints,
    a_flood_of_pictures,
    a_flood_of_a_command,
    a_greeting_of_records_of_a_byte,
    an_edit_of_every_line,
    a_call_with_unknown_arguments,
    a_workspace_that_is_large,
)
"""On the time of the controller."""
MEMORY: tuple[Attack, ...] = (
    a_supervisor_that_lies,
    results_of_empty_lists,
    a_flood_of_greetings,
    half_requests_without_a_token,
)
"""On its memory and descriptors."""
