"""Specs as sessions have them, and what was made of them removed."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from sandbox import resources
from sandbox.container import images
from sandbox.container.compiler import compile_spec
from sandbox.container.identity import SandboxIdentity, new_sandbox_id, new_uid
from sandbox.container.labels import LABEL_OWNER
from sandbox.container.spec import ContainerSpec
from sandbox.link.link import ByteStream, Link
from sandbox.policy import load, seccomp_profile
from sandbox.runtimes.base import ContainerRuntime

LABEL = LABEL_OWNER
"""By which the containers of a test are found: each test owns its own."""


@asynccontextmanager
async def specs_of(runtime: ContainerRuntime) -> AsyncIterator[Callable[..., ContainerSpec]]:
    """A maker of specs by a policy and with its image; at the end their containers are removed."""
    run = uuid.uuid4().hex
    policies = load(resources.policies())
    engine = await runtime.engine()

    def make(policy_name: str = "", image: str = "") -> ContainerSpec:
        policy = policies.get(policy_name)
        identity = SandboxIdentity(
            sandbox_id=new_sandbox_id(),
            owner=run,
            uid=new_uid(),
            created_at=time.time(),
        )
        return compile_spec(
            policy,
            identity,
            image=image or images.reference(policy.image),
            engine=engine,
            seccomp=seccomp_profile(),
        )

    yield make
    for left in await runtime.list({LABEL: run}):
        await runtime.remove(left.id)


@asynccontextmanager
async def linked(io: ByteStream) -> AsyncIterator[Link]:
    """A running link over a byte stream, greeted."""
    link = Link(io, initiator=True, hello={"build": "contract"})
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.run)
            try:
                await link.greeting()
                yield link
            finally:
                await link.aclose()


async def running(runtime: ContainerRuntime, spec: ContainerSpec) -> str:
    """The id of a container that was made and started."""
    container_id = await runtime.create(spec)
    await runtime.start(container_id)
    return container_id
