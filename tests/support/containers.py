"""One container of a policy on a real engine, and links to its supervisor."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from sandbox.container import images
from sandbox.container.compiler import compile_spec
from sandbox.container.identity import SandboxIdentity, new_sandbox_id, new_uid
from sandbox.link.link import Link
from sandbox.policy import load, seccomp_profile
from sandbox.runtimes.docker.runtime import DockerRuntime

from .served import RUNTIME

OWNER = f"test-supervisor-{os.getpid()}"


class Container:
    """A running container; removed by whoever made it."""

    def __init__(self, engine: DockerRuntime, container_id: str) -> None:
        self._engine = engine
        self.container_id = container_id

    @asynccontextmanager
    async def link(self) -> AsyncIterator[Link]:
        """A new link, greeted; an older one is replaced by it."""
        io = await self._engine.connect(self.container_id)
        link = Link(io, initiator=True, hello={"build": "test"})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.run)
            await link.greeting(60)
            try:
                yield link
            finally:
                await link.aclose()


@asynccontextmanager
async def container(engine: DockerRuntime, policy: str = "offline") -> AsyncIterator[Container]:
    """A started container of a policy, for the runtime under test."""
    found = await engine.engine()
    known = load().get(policy)
    identity = SandboxIdentity(
        sandbox_id=new_sandbox_id(),
        owner=OWNER,
        uid=new_uid(),
        created_at=time.time(),
    )
    spec = compile_spec(
        known,
        identity,
        image=images.reference(known.image),
        engine=found,
        seccomp=seccomp_profile(),
        runtime_override=RUNTIME,
    )
    container_id = await engine.create(spec)
    try:
        await engine.start(container_id)
        yield Container(engine, container_id)
    finally:
        with anyio.CancelScope(shield=True):
            await engine.remove(container_id)
