"""The kernels of a Jupyter Server, behind a link: the operations ``kernel.*`` of docs/link.md."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_core.utils import ensure_async
from jupyter_server.services.kernels.kernelmanager import MappingKernelManager

from sandbox.errors import InfrastructureError, NotFound, SandboxError
from sandbox.jupyter.kernelspecs import PROVISIONER
from sandbox.jupyter.serverkernel import ServerKernel
from sandbox.kernels.answers import KERNEL_NAME, MAX_LISTED
from sandbox.link import wire
from sandbox.link.stream import Message, Stream

_NAME = re.compile(KERNEL_NAME)

logger = logging.getLogger(__name__)


class ServerKernels:
    """All kernels that the server runs, whoever started them.

    Args:
        start: Runs a function beside, until it ends or the extension does.
        changed: Called when something became of a kernel that we did not do.
    """

    def __init__(
        self,
        kernels: MappingKernelManager,
        specs: KernelSpecManager,
        start: Callable[..., Any],
        changed: Callable[[], None],
    ) -> None:
        self._manager = kernels
        self._specs = specs
        self._start = start
        self._changed = changed
        self._known: dict[str, ServerKernel] = {}
        self._starting: set[str] = set()
        self._streams: dict[str, Stream] = {}
        """Of each kernel the stream that follows it; a newer one takes its place."""

    async def serve(self, stream: Stream, op: str) -> None:
        """Do one operation."""
        request = stream.request
        match op:
            case "list":
                self._look()
                described = [kernel.describe() for kernel in self._known.values()]
                await stream.send_json({"kernels": described})
            case "start":
                jupyter_id = await self._started(str(request["name"]))
                kernel = self._add(str(request["kernel_id"]), jupyter_id)
                await stream.send_json({"epoch": kernel.epoch, "pid": 0})
            case "attach":
                await self._attach(stream, self._find(stream), int(request.get("after") or 0))
            case "interrupt":
                await self._find(stream).interrupt()
                await stream.send_json({})
            case "restart":
                await stream.send_json({"epoch": await self._restart(self._find(stream))})
            case "stop":
                await self._stop(self._find(stream))
                await stream.send_json({})
            case _:
                raise NotFound(f"There is no operation kernel.{op}.")

    async def installed(self) -> dict[str, dict[str, str]]:
        """The kernelspecs, as ``info`` tells of them."""
        found: dict[str, dict[str, Any]] = await ensure_async(self._specs.get_all_specs())
        return {
            name: {
                "display_name": str(spec["spec"].get("display_name", name))[:200],
                "language": str(spec["spec"].get("language", ""))[:100],
            }
            for name, spec in sorted(found.items())[:MAX_LISTED]
            if _NAME.match(name)
        }

    async def sandboxed(self) -> dict[str, str]:
        """The kernelspecs whose kernels are in sandboxes, each with its policy; empty for the
        default one."""
        found: dict[str, dict[str, Any]] = await ensure_async(self._specs.get_all_specs())
        told: dict[str, str] = {}
        for name, each in sorted(found.items()):
            stanza: dict[str, Any] = each["spec"].get("metadata", {}).get("kernel_provisioner", {})
            if stanza.get("provisioner_name") == PROVISIONER and _NAME.match(name):
                told[name] = str(stanza.get("config", {}).get("policy", ""))[:64]
        return told

    @property
    def is_current(self) -> bool:
        """Whether the kernels that the server runs are those that were listed last."""
        return self._there() == {each.jupyter_id for each in self._known.values() if each.is_alive}

    def knows(self, kernel_id: str) -> bool:
        """Whether there is anything to tell of a kernel: it runs, or had cells of ours."""
        return kernel_id in self._known

    def take_replaced(self) -> list[str]:
        """The kernels with cells of ours that others, or the server itself, have restarted; each
        is told once."""
        found = [each for each in self._known.values() if each.was_replaced]
        for kernel in found:
            kernel.was_replaced = False
        return [kernel.kernel_id for kernel in found]

    def own_id(self, kernel_id: str) -> str:
        """The server's id of a kernel.

        Raises:
            NotFound: There is none.
        """
        if (kernel := self._known.get(kernel_id)) is None:
            raise NotFound("There is no such kernel.")
        return kernel.jupyter_id

    def named(self, jupyter_id: str) -> str:
        """How we name one of the server's kernels; empty when it has no such one."""
        self._look()
        for kernel in self._known.values():
            if kernel.jupyter_id == jupyter_id and kernel.is_alive:
                return kernel.kernel_id
        return ""

    # --- inside

    def _there(self) -> set[str]:
        return set(self._manager.list_kernel_ids())

    def _is_there(self, jupyter_id: str) -> bool:
        return jupyter_id in self._manager

    def _look(self) -> None:
        """Note the kernels that others have started or shut down.

        Of one that is gone and had cells of ours something is kept, so that its end is told.
        """
        there = self._there()
        for kernel_id, kernel in tuple(self._known.items()):
            if kernel.jupyter_id not in there and not kernel.is_ours:
                kernel.gone()
                if not kernel.was_used or len(self._known) >= MAX_LISTED:
                    kernel.log.finish()
                    del self._known[kernel_id]
        known = {kernel.jupyter_id for kernel in self._known.values()}
        for jupyter_id in sorted(there - known - self._starting):
            if len(self._known) < MAX_LISTED and (own := jupyter_id.replace("-", "")[:32].lower()):
                self._add(f"k-{own}", jupyter_id)

    def _add(self, kernel_id: str, jupyter_id: str) -> ServerKernel:
        manager = self._manager.get_kernel(jupyter_id)
        kernel = ServerKernel(kernel_id, jupyter_id, manager, self._is_there, self._changed)
        if _NAME.match(kernel.name):
            self._known[kernel_id] = kernel
            self._start(self._live, kernel)
        return kernel

    async def _live(self, kernel: ServerKernel) -> None:
        try:
            await kernel.live()
        except Exception:  # the outermost edge of a kernel: the others go on
            logger.exception("kernel %s", kernel.kernel_id)
            kernel.gone()
            self._changed()

    def _find(self, stream: Stream) -> ServerKernel:
        kernel = self._known.get(str(stream.request.get("kernel_id")))
        if kernel is None:
            raise NotFound("There is no such kernel.")
        return kernel

    async def _started(self, name: str) -> str:
        """Start a kernel and return the server's id of it."""
        if name not in await self.installed():
            raise NotFound(f"There is no kernelspec {name!r:.80}.", remedy="List the kernelspecs.")
        jupyter_id = str(uuid4())
        self._starting.add(jupyter_id)
        try:
            start = self._manager.start_kernel(kernel_id=jupyter_id, kernel_name=name)
            await ensure_async(start)
        except Exception as exc:  # whatever a provisioner fails with
            raise InfrastructureError(f"The kernel did not start: {exc!s:.500}") from exc
        finally:
            self._starting.discard(jupyter_id)
        return jupyter_id

    async def _restart(self, kernel: ServerKernel) -> int:
        """Restart a kernel; one that somebody has shut down is started again."""
        kernel.is_ours = True
        try:
            if not self._is_there(kernel.jupyter_id):
                jupyter_id = await self._started(kernel.name)
                kernel.replaced(jupyter_id, self._manager.get_kernel(jupyter_id))
                self._start(self._live, kernel)
                return kernel.epoch
            await ensure_async(self._manager.restart_kernel(kernel.jupyter_id, now=True))
            kernel.entered()
        except SandboxError:
            raise
        except Exception as exc:
            raise InfrastructureError(f"{exc!s:.500}") from exc
        finally:
            kernel.is_ours = False
        return kernel.epoch

    async def _stop(self, kernel: ServerKernel) -> None:
        kernel.is_ours = True
        try:
            with suppress(KeyError):
                await ensure_async(self._manager.shutdown_kernel(kernel.jupyter_id, now=True))
        except Exception as exc:
            raise InfrastructureError(f"The kernel did not stop: {exc!s:.500}") from exc
        finally:
            kernel.is_ours = False
        kernel.log.finish()
        self._known.pop(kernel.kernel_id, None)

    async def _attach(self, stream: Stream, kernel: ServerKernel, after: int) -> None:
        if (older := self._streams.get(kernel.kernel_id)) is not None:
            older.reset()
        self._streams[kernel.kernel_id] = stream
        try:
            async with asyncio.TaskGroup() as tasks:
                telling = tasks.create_task(_tell(stream, kernel, after))
                async for message in stream:
                    await _take(kernel, message)
                telling.cancel()
        finally:
            if self._streams.get(kernel.kernel_id) is stream:
                del self._streams[kernel.kernel_id]


async def _tell(stream: Stream, kernel: ServerKernel, after: int) -> None:
    async for got in kernel.log.follow(after):
        if got.missed:
            first = got.position - len(got.entries)
            event = {"event": "dropped", "messages": got.missed, "bytes": 0}
            await stream.send(_event(first, kernel.epoch, event), wire.KERNEL)
        for entry in got.entries:
            await stream.send(entry, wire.KERNEL)
    stream.end()


def _event(seq: int, epoch: int, event: dict[str, Any]) -> bytes:
    head = {"seq": seq, "epoch": epoch, "channel": "event"}
    return wire.pack_parts([wire.encode_json(head), wire.encode_json(event)])


async def _take(kernel: ServerKernel, message: Message) -> None:
    """Do what the other end says; what it acknowledges needs no note, for the log is bounded."""
    if message.tag == wire.KERNEL:
        _, *parts = wire.unpack_parts(message.data)
        await kernel.send(parts)
