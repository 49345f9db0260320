"""A supervisor in memory that says of its one kernel whatever a test wants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio

from sandbox.bulkheads.overruns import Overruns
from sandbox.errors import SandboxError
from sandbox.kernels.kernels import Kernels
from sandbox.link import wire
from sandbox.link.stream import Stream
from sandbox.outputs.redaction import Redactor
from sandbox.policy.models import Limits

from ...support.machines import MemoryJournal, scripted
from .conftest import GRACE_S, SESSION

Content = Mapping[str, Any]
Script = Callable[["Liar", str, str, Content], None]


class Liar:
    """Answers as a supervisor with one well-behaved kernel, but for what the test's script does."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.answers: dict[str, Any] = {
            "kernel.list": {"kernels": []},
            "kernel.start": {"kernel_id": "k-default", "name": "python3", "pid": 5, "epoch": 1},
            "kernel.interrupt": {},
            "kernel.restart": {"pid": 6, "epoch": 2},
            "info": {"kernelspecs": {}},
        }
        self.ops: list[str] = []
        self.epoch = 1
        self.seq = 0
        self.acknowledged = 0
        self.meanwhile: dict[str, Callable[[], None]] = {}
        """What it does between being asked and answering."""
        self.is_busy = False
        """Whether it answers nothing more, as a kernel whose cell does not end."""
        self.relink: Callable[[Kernels], Awaitable[None]]
        """Ends the link and makes another one."""
        self._stream: Stream | None = None
        self._sent: asyncio.Queue[bytes] = asyncio.Queue()

    def raw(self, data: bytes) -> None:
        self._sent.put_nowait(data)

    def say(
        self,
        channel: str,
        kind: str,
        content: Any,
        parent: str,
        *,
        seq: int = 0,
        epoch: int = 0,
        metadata: Any = None,
        buffers: tuple[bytes, ...] = (),
    ) -> None:
        self.seq = seq or self.seq + 1
        envelope = {"seq": self.seq, "epoch": epoch or self.epoch, "channel": channel}
        header, parents = {"msg_type": kind, "msg_id": f"m-{self.seq}"}, {"msg_id": parent}
        said = (envelope, b"", header, parents, metadata or {}, content)
        parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in said]
        self.raw(wire.pack_parts([*parts, *buffers]))

    def event(self, event: Content, *, epoch: int = 0) -> None:
        self.seq += 1
        envelope = {"seq": self.seq, "epoch": epoch or self.epoch, "channel": "event"}
        self.raw(wire.pack_parts([json.dumps(part).encode() for part in (envelope, event)]))

    def end(self, msg_id: str, kind: str = "execute", **reply: Any) -> None:
        self.say("shell", f"{kind}_reply", {"status": "ok", "execution_count": 1, **reply}, msg_id)
        self.say("iopub", "status", {"execution_state": "idle"}, msg_id)

    async def serve(self, stream: Stream) -> None:
        op = str(stream.request["op"])
        self.ops.append(op)
        if op in self.meanwhile:
            self.meanwhile[op]()
            await anyio.sleep(0.2)
        if op == "kernel.attach":
            await self._attached(stream)
        elif isinstance(self.answers.get(op), SandboxError):
            raise self.answers[op]
        elif op in self.answers:
            await stream.send_json(self.answers[op])
            stream.end()

    async def _attached(self, stream: Stream) -> None:
        async def tell() -> None:
            while True:
                await stream.send(await self._sent.get(), wire.KERNEL)

        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(tell())
            async for message in stream:
                if message.tag == wire.JSON:
                    self.acknowledged = json.loads(message.data)["ack"]
                if message.tag == wire.KERNEL:
                    _, _, header, _, _, content = wire.unpack_parts(message.data)
                    self._asked(json.loads(header), json.loads(content))
            telling.cancel()

    def _asked(self, header: Content, content: Content) -> None:
        kind, msg_id = str(header["msg_type"]), str(header["msg_id"])
        if self.is_busy:
            return
        if kind == "kernel_info_request":
            self.end(msg_id, "kernel_info")
        else:
            self.script(self, kind, msg_id, content)


@asynccontextmanager
async def lied_to(
    script: Script, overruns: Overruns | None = None, redactor: Redactor | None = None
) -> AsyncIterator[tuple[Kernels, Liar]]:
    liar = Liar(script)
    async with scripted(liar.serve) as machine, anyio.create_task_group() as tasks:
        kernels = Kernels(
            SESSION,
            Limits(),
            MemoryJournal(),
            grace_s=GRACE_S,
            overruns=overruns,
            redactor=redactor,
        )
        tasks.start_soon(kernels.run)
        link = await machine.connect()

        async def relink(kernels: Kernels) -> None:
            await link.aclose()
            known = {"kernel_id": "k-default", "name": "python3", "epoch": liar.epoch}
            liar.answers["kernel.list"] = {
                "kernels": [known | {"alive": True, "last_seq": liar.seq}]
            }
            await kernels.attach(await machine.connect())

        liar.relink = relink
        await kernels.attach(link)
        yield kernels, liar
        tasks.cancel_scope.cancel()
