"""Specs as sessions have them, and what was made of them removed."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from sandbox import images, resources
from sandbox.link import ByteStream, Link
from sandbox.policy import load, seccomp_profile
from sandbox.runtimes.base import ContainerRuntime
from sandbox.spec import ContainerSpec, SessionIdentity, compile_spec, new_session_id, new_uid

LABEL = "io.sandbox.contract-test"


@asynccontextmanager
async def specs_of(runtime: ContainerRuntime) -> AsyncIterator[Callable[[], ContainerSpec]]:
    """A maker of specs by the default policy; at the end their containers are removed."""
    run = uuid.uuid4().hex
    policies = load(resources.policies())
    policy = policies.get(policies.default)
    engine = await runtime.engine()

    def make() -> ContainerSpec:
        identity = SessionIdentity(
            session_id=new_session_id(),
            principal="contract",
            owner=run,
            uid=new_uid(),
            created_at=time.time(),
            expires_at=time.time() + 600,
        )
        spec = compile_spec(
            policy,
            identity,
            image=images.reference(policy.image),
            runtimes=engine.runtimes,
            seccomp=seccomp_profile(),
            cpus_available=engine.cpus,
        )
        return spec.model_copy(update={"labels": {**spec.labels, LABEL: run}})

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
