"""A real supervisor on this machine, in a folder of its own, and links to it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sandbox.link import wire
from sandbox.link.link import Link
from sandbox.link.stream import Stream
from sandbox.supervisor.pipes import PipePair

ROOT = Path(__file__).parents[2]
_START = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from sandbox.supervisor.main import main
main()
"""


class SupervisorProcess:
    """One supervisor process. Its workspace is ``folder / "workspace"``."""

    def __init__(self, folder: Path) -> None:
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        self.address = f"@sandbox-test-{uuid.uuid4().hex}"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.egress_port: int = free.getsockname()[1]
        env = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SANDBOX_SUPERVISOR": self.address,
            "SANDBOX_STATE": str(folder / "state"),
            "SANDBOX_WORKSPACE": str(self.workspace),
            "SANDBOX_EGRESS_PORT": str(self.egress_port),
        }
        self.process = subprocess.Popen([sys.executable, "-I", "-c", _START], env=env)

    def connect(self) -> socket.socket:
        """A connection to its socket, as a bridge makes one; polls until it listens."""
        deadline = time.monotonic() + 10
        while True:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(self.address.replace("@", "\0", 1))
            except OSError:
                connection.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
            else:
                return connection

    @asynccontextmanager
    async def link(self) -> AsyncIterator[Link]:
        """A link, greeted."""
        with self.connect() as connection:
            their_in, our_out = os.pipe()
            our_in, their_out = os.pipe()
            socket.send_fds(connection, [b"link"], [their_in, their_out])
            os.close(their_in)
            os.close(their_out)
            link = Link(PipePair(our_in, our_out), initiator=True, hello={})
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(link.run())
                await link.greeting()
                try:
                    yield link
                finally:
                    await link.aclose()

    def peak_memory_bytes(self) -> int:
        """The most memory that the supervisor has had resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def stop(self) -> None:
        """End it, and with it everything it started."""
        self.process.terminate()
        self.process.wait(10)


class Cells:
    """A kernel attached to: runs cells and sees everything that the log says."""

    def __init__(self, link: Link, kernel_id: str, after: int = 0) -> None:
        self.kernel_id = kernel_id
        self.stream = link.open("kernel.attach", kernel_id=kernel_id, after=after)
        self.seq = after
        self.events: list[dict[str, Any]] = []
        self._unacknowledged = 0

    async def next(self) -> tuple[dict[str, Any], list[bytes]]:
        """The next message: its head and its other parts; acknowledged now and then."""
        message = await self.stream.receive()
        assert message is not None, "the supervisor ended the stream"
        raw, *parts = wire.unpack_parts(message.data)
        head = json.loads(raw)
        self.seq = head["seq"]
        self._unacknowledged += len(message.data)
        if self._unacknowledged > 1024 * 1024:
            self._unacknowledged = 0
            await self.stream.send_json({"ack": self.seq})
        if head["channel"] == "event":
            self.events.append({**json.loads(parts[0]), "epoch": head["epoch"]})
        return head, parts

    async def event(self, name: str) -> dict[str, Any]:
        """The next event of that name, those already seen included."""
        while not any(event["event"] == name for event in self.events):
            await self.next()
        found = next(event for event in self.events if event["event"] == name)
        self.events.remove(found)
        return found

    async def submit(self, code: str) -> str:
        """Send a cell and return its id."""
        msg_id = uuid.uuid4().hex
        header = {"msg_id": msg_id, "msg_type": "execute_request", "session": "test"}
        header |= {"username": "test", "date": "2026-01-01T00:00:00Z", "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}}
        content |= {"allow_stdin": False, "stop_on_error": True}
        raw = [b"", *(json.dumps(part).encode() for part in (header, {}, {}, content))]
        await self.stream.send(wire.pack_parts([b'{"channel":"shell"}', *raw]), wire.KERNEL)
        return msg_id

    async def outputs(self, msg_id: str) -> tuple[list[tuple[str, dict[str, Any]]], dict[str, Any]]:
        """The outputs and the reply of a cell; waits for idle and reply."""
        found: list[tuple[str, dict[str, Any]]] = []
        reply: dict[str, Any] | None = None
        idle = False
        while not idle or reply is None:
            head, parts = await self.next()
            if head["channel"] == "event" or json.loads(parts[2]).get("msg_id") != msg_id:
                continue
            msg_type, content = json.loads(parts[1])["msg_type"], json.loads(parts[4])
            if head["channel"] == "shell":
                reply = content
            elif msg_type == "status":
                idle = content["execution_state"] == "idle"
            else:
                found.append((msg_type, content))
        return found, reply

    async def run(self, code: str) -> str:
        """Run a cell that must succeed and return what it printed."""
        found, reply = await self.outputs(await self.submit(code))
        assert reply["status"] == "ok", found
        return "".join(content["text"] for kind, content in found if kind == "stream")


async def run_command(
    link: Link, stdin: bytes = b"", **fields: Any
) -> tuple[bytes, bytes, dict[str, Any]]:
    """Run a command to its end: stdout, stderr and the ending."""
    stream = link.open("process.run", **fields)
    if stdin:
        await stream.send(stdin)
    stream.end()
    return await ending(stream)


async def ending(stream: Stream) -> tuple[bytes, bytes, dict[str, Any]]:
    """What comes on a stream of bytes until it ends: both kinds, and the JSON message."""
    collected = {wire.BYTES: bytearray(), wire.STDERR: bytearray()}
    last: dict[str, Any] = {}
    async for message in stream:
        if message.tag == wire.JSON:
            last = message.json()
        else:
            collected[message.tag] += message.data
    return bytes(collected[wire.BYTES]), bytes(collected[wire.STDERR]), last
