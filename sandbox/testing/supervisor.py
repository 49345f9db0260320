"""A supervisor in memory: answers every operation of ``docs/link.md``, executes nothing."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import astuple
from typing import Any

from sandbox.container.spec import SHM, ContainerSpec
from sandbox.errors import Conflict, InvalidRequest, NotFound
from sandbox.link import wire
from sandbox.link.link import ByteStream, Link, Stream
from sandbox.nofollow import Step, walk
from sandbox.testing.checkpoints import OPS, FakeCheckpoints
from sandbox.testing.command import FakeCommand
from sandbox.testing.filesystem import FakeFiles
from sandbox.testing.kernel import FakeKernel
from sandbox.testing.terminal import FakeTerminal

KERNELSPECS = {
    "python3": {"display_name": "Python 3 (fake)", "language": "python"},
    "bash": {"display_name": "Bash (fake)", "language": "bash"},
}
FORBIDDEN = (
    *("attach_bpf", "attach_filter", "bpf", "chroot", "clone3", "clone_newuser"),
    *("io_uring_setup", "keyctl", "mknod", "mount", "perf_event_open", "prctl_seccomp", "ptrace"),
    *("seccomp", "setns", "setuid", "socket_alg", "socket_buffers", "socket_netfilter"),
    *("socket_netlink", "socket_packet", "socket_raw", "socket_vsock", "unshare", "userfaultfd"),
)


class FakeSupervisor:
    """What lives on inside a container while links come and go.

    Its probe answers what a container of this spec would measure, but for the facts in ``probe``,
    which it gets wrong on purpose.
    """

    def __init__(self, spec: ContainerSpec, *, probe: Mapping[str, Any] | None = None) -> None:
        self._spec = spec
        self._probe = dict(probe or {})
        self._started_at = time.time()
        self._pids = itertools.count(10)
        self._link: Link | None = None
        self.awake: list[str] = []
        """What it says that goes on by itself."""
        self.full: dict[str, str] = {}
        """The filesystems that are full, and of what."""
        self.killed: dict[str, Any] = {}
        """What it says of processes that were killed for want of memory."""
        self.kernels: dict[str, FakeKernel] = {}
        self.commands: dict[str, FakeCommand] = {}
        self._running: set[asyncio.Task[None]] = set()
        self.terminals: dict[str, FakeTerminal] = {}
        self.files = FakeFiles(tuple(tmpfs.target for tmpfs in spec.tmpfs))
        self.checkpoints = FakeCheckpoints(self.kernels, self.files, lambda: next(self._pids))

    async def serve(self, io: ByteStream) -> None:
        """Serve one link until it ends; an older one is closed first."""
        link = Link(io, initiator=False, hello={"build": "fake"}, on_open=self._serve)
        older, self._link = self._link, link
        if older is not None:
            await older.aclose()
        await link.run()

    async def close(self) -> None:
        """Die, with everything inside."""
        for kernel in self.kernels.values():
            kernel.stop()
        for command in self.commands.values():
            command.stop()
        if self._link is not None:
            await self._link.aclose()

    async def _serve(self, stream: Stream) -> None:
        request = stream.request
        group, _, op = str(request.get("op", "")).partition(".")
        serve: dict[str, Callable[[Stream, str, Mapping[str, Any]], Awaitable[None]]] = {
            "info": self._info,
            "activity": self._answer_activity,
            "probe": self._answer_probe,
            "kernel": self._serve_kernel,
            "process": self._run,
            "command": self._serve_command,
            "terminal": self._serve_terminal,
            "file": self.files.serve,
        }
        if group not in serve:
            raise InvalidRequest(f"There is no operation {request.get('op')!r:.80}.")
        await serve[group](stream, op, request)
        stream.end()

    async def _info(self, stream: Stream, _op: str, _request: Mapping[str, Any]) -> None:
        spec = self._spec
        told = {"uid": spec.uid, "gid": spec.gid, "pid": 1, "python": "3.11.2"}
        await stream.send_json({**told, "started_at": self._started_at, "kernelspecs": KERNELSPECS})

    async def _answer_activity(self, stream: Stream, _op: str, _request: Mapping[str, Any]) -> None:
        await stream.send_json({"awake": self.awake})

    async def _answer_probe(self, stream: Stream, _op: str, _request: Mapping[str, Any]) -> None:
        await stream.send_json({**probe_facts(self._spec), **self._probe})

    # --- kernels

    async def _serve_kernel(self, stream: Stream, op: str, request: Mapping[str, Any]) -> None:
        if op == "start":
            await self._start_kernel(stream, request)
            return
        if op == "list":
            await stream.send_json({"kernels": [k.info() for k in self.kernels.values()]})
            return
        kernel = self.kernels.get(str(request.get("kernel_id", "")))
        if kernel is None:
            raise NotFound(f"There is no kernel {request.get('kernel_id')!r:.80}.")
        if op in OPS:
            await self.checkpoints.serve(stream, op, kernel, request)
            return
        match op:
            case "attach":
                await self._attach_kernel(stream, kernel, int(request.get("after") or 0))
            case "evidence":
                await stream.send_json({"full": self.full, **self.killed})
            case "interrupt":
                kernel.interrupt()
                await stream.send_json({})
            case "restart":
                kernel.restart(next(self._pids))
                await stream.send_json({"pid": kernel.pid, "epoch": kernel.epoch})
            case "stop":
                kernel.stop()
                del self.kernels[kernel.kernel_id]
                self.checkpoints.frozen.pop(kernel.kernel_id, None)
                await stream.send_json({})
            case _:
                raise InvalidRequest(f"There is no operation kernel.{op}.")

    async def _start_kernel(self, stream: Stream, request: Mapping[str, Any]) -> None:
        kernel_id, name = str(request["kernel_id"]), str(request.get("name") or "python3")
        if name not in KERNELSPECS:
            raise NotFound(f"There is no kernelspec {name!r:.80}.")
        if kernel_id in self.kernels:
            raise Conflict(f"There is a kernel {kernel_id!r:.80} already.")
        kernel = self.kernels[kernel_id] = FakeKernel(kernel_id, name, next(self._pids))
        told = {"kernel_id": kernel_id, "name": name, "pid": kernel.pid, "epoch": kernel.epoch}
        await stream.send_json(told)

    async def _attach_kernel(self, stream: Stream, kernel: FakeKernel, after: int) -> None:
        async def tell() -> None:
            seq = after
            while True:
                seq, message = await kernel.after(seq)
                await stream.send(message, wire.KERNEL)

        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(tell())
            async for message in stream:
                if message.tag == wire.KERNEL:
                    kernel.submit(wire.unpack_parts(message.data))
                elif message.tag == wire.JSON:
                    kernel.forget(int(message.json()["ack"]))
            telling.cancel()

    # --- commands and terminals

    async def _run(self, stream: Stream, _op: str, request: Mapping[str, Any]) -> None:
        stdin = b"".join([message.data async for message in stream])
        once = FakeCommand({**request, "command_id": ""}, stdin, next(self._pids), self._connect)
        await once.run()
        async for got in once.log.follow():
            for tag, data in got.entries:
                await stream.send(data, tag)
        await stream.send_json(once.ending)

    async def _serve_command(self, stream: Stream, op: str, request: Mapping[str, Any]) -> None:
        if op == "list":
            await stream.send_json({"commands": [c.info() for c in self.commands.values()]})
            return
        command_id = str(request.get("command_id", ""))
        if op == "start":
            stdin = b"".join([message.data async for message in stream])
            command = FakeCommand(request, stdin, next(self._pids), self._connect)
            self.commands[command_id] = command
            self._running.add(task := asyncio.create_task(command.run()))
            task.add_done_callback(self._running.discard)
            await stream.send_json({"command_id": command_id, "pid": command.pid})
            return
        command = self.commands.get(command_id)
        if command is None:
            raise NotFound(f"There is no command {command_id!r:.80}.")
        match op:
            case "attach":
                await command.attach(stream, int(request.get("after") or 0))
            case "stop" | "forget":
                command.stop()
                if op == "forget":
                    del self.commands[command_id]
                await stream.send_json({})
            case _:
                raise InvalidRequest(f"There is no operation command.{op}.")

    async def _connect(self, authority: str) -> bytes:
        """What the gateway answers to a program that asks for a tunnel."""
        if self._link is None:
            return b""
        egress = self._link.open("egress")
        await egress.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        egress.end()
        return b"".join([message.data async for message in egress])

    async def _serve_terminal(self, stream: Stream, op: str, request: Mapping[str, Any]) -> None:
        terminal_id = str(request.get("terminal_id", ""))
        if op == "list":
            await stream.send_json({"terminals": [t.info() for t in self.terminals.values()]})
            return
        size = int(request.get("rows") or 24), int(request.get("cols") or 80)
        if op == "open":
            if terminal_id in self.terminals:
                raise Conflict(f"There is a terminal {terminal_id!r:.80} already.")
            terminal = FakeTerminal(terminal_id, *size, next(self._pids))
            self.terminals[terminal_id] = terminal
            await stream.send_json({"terminal_id": terminal_id, "pid": terminal.pid})
            return
        terminal = self.terminals.get(terminal_id)
        if terminal is None:
            raise NotFound(f"There is no terminal {terminal_id!r:.80}.")
        match op:
            case "attach":
                await terminal.attach(stream, int(request.get("after") or 0))
            case "resize":
                terminal.rows, terminal.cols = size
                await stream.send_json({})
            case "close":
                terminal.exit(None, 1)
                del self.terminals[terminal_id]
                await stream.send_json({})
            case _:
                raise InvalidRequest(f"There is no operation terminal.{op}.")


def probe_facts(spec: ContainerSpec) -> dict[str, Any]:
    """What the probe measures in a container that is exactly as its spec says."""
    nothing = "0" * 16
    return {
        "uid": spec.uid,
        "gid": spec.gid,
        "groups": [],
        "capabilities": dict.fromkeys(
            ("effective", "permitted", "bounding", "inheritable", "ambient"), nothing
        ),
        "no_new_privs": True,
        "seccomp_mode": 2,
        "interfaces": ["lo"],
        "routes": [],
        "resolvers": list(spec.dns),
        "root_read_only": spec.read_only_root,
        "writable": [SHM, *(tmpfs.target for tmpfs in spec.tmpfs)],
        "devices": ["/dev/null", "/dev/urandom"],
        "mounts": [
            _mount("/", "overlay", "ro"),
            _mount(SHM, "tmpfs", "rw", "nosuid", "nodev", f"size={spec.shm_bytes}"),
            *(
                _mount(
                    tmpfs.target,
                    "tmpfs",
                    *("rw", "nosuid", "nodev", *(["noexec"] if tmpfs.noexec else [])),
                    *(f"size={tmpfs.size_bytes}", f"nr_inodes={tmpfs.inodes}"),
                )
                for tmpfs in spec.tmpfs
            ),
            *(
                _mount(each.target, "ext4", "ro" if each.read_only else "rw", "nosuid", "nodev")
                for each in spec.mounts
            ),
            *(_mount(path, "tmpfs", "ro") for path in spec.masked_paths),
            *(_mount(path, "proc", "ro") for path in spec.readonly_paths),
        ],
        "places": {
            each.target: {
                "steps": [astuple(step) for step in _steps(each.source)],
                "write": "EROFS" if each.read_only else "allowed",
            }
            for each in spec.mounts
        },
        "memory_limit": spec.memory_bytes,
        "pids_limit": spec.pids_limit,
        "disk_read": min((rate.bytes_per_s for rate in spec.disk_reads), default=-1),
        "disk_write": min((rate.bytes_per_s for rate in spec.disk_writes), default=-1),
        "sysctls": spec.sysctls,
        "nproc": -1,
        **{limit.name: limit.hard for limit in spec.ulimits},
        "forbidden": dict.fromkeys(FORBIDDEN, "EPERM"),
        "hostname": spec.hostname,
        "environment": sorted(spec.environment),
    }


def _steps(source: str) -> list[Step]:
    try:
        return walk(source)
    except OSError:
        return []


def _mount(target: str, fstype: str, *options: str) -> dict[str, Any]:
    return {"target": target, "fstype": fstype, "options": list(options)}
