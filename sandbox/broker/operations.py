"""What a broker does, request by request."""

from __future__ import annotations

import logging

from sandbox.broker.admission import AdmissionRules
from sandbox.broker.containers import OwnContainers
from sandbox.container.labels import LABEL_BROKER
from sandbox.container.spec import ContainerSpec
from sandbox.errors import SessionLost
from sandbox.link.link import ByteStream
from sandbox.runtimes.base import ContainerInfo, ContainerRuntime, ContainerStats, EngineInfo
from sandbox.runtimes.broker.protocol import (
    ContainerId,
    Create,
    Engine,
    Image,
    List,
    OfContainer,
    Request,
    encode_answer,
)
from sandbox.runtimes.known import KnownEngine

logger = logging.getLogger("sandbox.broker")


class Broker:
    """The engine, as far as a controller may use it.

    A container that is not the broker's is answered for as if there were none.
    """

    def __init__(
        self, runtime: ContainerRuntime, rules: AdmissionRules, ledger: OwnContainers
    ) -> None:
        self._runtime = runtime
        self._rules = rules
        self._ledger = ledger
        self._engine = KnownEngine(runtime)

    async def answer(self, request: Request) -> bytes:
        """Do what is asked and return the answer as a line; not for ``connect``.

        Raises:
            SandboxError: It cannot be done, or may not.
        """
        match request:
            case Engine():
                return encode_answer(EngineInfo, await self._engine.ask())
            case Image(reference=reference):
                known = reference in self._rules.images
                return encode_answer(bool, known and await self._runtime.has_image(reference))
            case Create(spec=spec):
                return encode_answer(ContainerId, await self._create(spec))
            case List(labels=labels):
                return encode_answer(list[ContainerInfo], await self._ledger.list(labels))
            case OfContainer(op="start", container=container):
                await self._check(container)
                return encode_answer(None, await self._runtime.start(container))
            case OfContainer(op="pause", container=container):
                await self._check(container)
                return encode_answer(None, await self._runtime.pause(container))
            case OfContainer(op="unpause", container=container):
                await self._check(container)
                return encode_answer(None, await self._runtime.unpause(container))
            case OfContainer(op="stats", container=container):
                await self._check(container)
                return encode_answer(ContainerStats, await self._runtime.stats(container))
            case OfContainer(op="inspect", container=container):
                return encode_answer(ContainerInfo, await self._inspect(container))
            case OfContainer(container=container):
                return encode_answer(None, await self._remove(container))

    async def connect(self, container_id: str) -> ByteStream:
        """Exec the bridge of a container.

        Raises:
            SessionLost: There is no such container, or it does not run.
        """
        await self._check(container_id)
        return await self._runtime.connect(container_id)

    async def _create(self, asked: ContainerSpec) -> str:
        spec = self._rules.compiled(asked, await self._engine.get())
        marked = {**spec.labels, LABEL_BROKER: self._ledger.mark}
        async with self._ledger.place(spec.uid):
            container_id = await self._runtime.create(spec.model_copy(update={"labels": marked}))
            self._ledger.enter(container_id, spec.uid)
        logger.info("container %.12s made: %s", container_id, spec.name)
        return container_id

    async def _inspect(self, container_id: str) -> ContainerInfo:
        info = await self._runtime.inspect(container_id)
        if self._ledger.marked(info):
            return info
        return ContainerInfo(id=container_id, name="", state="missing", labels={})

    async def _remove(self, container_id: str) -> None:
        if await self._ledger.owns(container_id):
            await self._runtime.remove(container_id)
            self._ledger.strike(container_id)
            logger.info("container %.12s removed", container_id)

    async def _check(self, container_id: str) -> None:
        if not await self._ledger.owns(container_id):
            raise SessionLost(f"There is no container {container_id:.12}.")
