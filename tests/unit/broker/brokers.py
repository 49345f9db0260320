"""Brokers over an engine in memory."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from sandbox.broker.admission import AdmissionRules
from sandbox.broker.containers import OwnContainers
from sandbox.broker.operations import Broker
from sandbox.broker.server import Server, serving
from sandbox.container.compiler import compile_spec
from sandbox.container.features import ALL
from sandbox.container.identity import SandboxIdentity, new_sandbox_id, new_uid
from sandbox.container.mounts import sources
from sandbox.container.roots import Root
from sandbox.container.spec import ContainerSpec
from sandbox.policy import load, seccomp_profile
from sandbox.runtimes.base import ContainerRuntime, EngineInfo
from sandbox.runtimes.broker.runtime import BrokerRuntime

ENGINE = EngineInfo(
    *("fake", "0", "0", 2, ("runc", "runsc"), True, "x86_64", 8 * 1024**3, 2),
    enforces=ALL,
    reports=ALL,
)
MARK = "f" * 32
ROOTS = (Root("datasets", "/srv/datasets"),)


def image_for(name: str) -> str:
    return f"sandbox/{name}:test"


def rules(**options: Any) -> AdmissionRules:
    return AdmissionRules(load(), seccomp_profile(), image_for, **{"roots": ROOTS, **options})


def spec(
    *,
    runtime: str = "runc",
    policy: str = "offline",
    variables: dict[str, str] | None = None,
    **identity: Any,
) -> ContainerSpec:
    """The spec of a new sandbox, as an honest controller compiles it."""
    chosen = load().get(policy)
    fields: dict[str, Any] = {
        "sandbox_id": new_sandbox_id(),
        "owner": secrets.token_hex(16),
        "uid": new_uid(),
        "created_at": time.time(),
    }
    return compile_spec(
        chosen,
        SandboxIdentity(**(fields | identity)),
        image=image_for(chosen.image),
        engine=ENGINE,
        seccomp=seccomp_profile(),
        mounts=sources(chosen, ROOTS),
        runtime_override=runtime,
        variables=variables,
    )


def broker(engine: ContainerRuntime, *, mark: str = MARK, limit: int = 10) -> Broker:
    return Broker(engine, rules(), OwnContainers(engine, mark, limit))


@asynccontextmanager
async def served(
    engine: ContainerRuntime,
    path: Path,
    *,
    mark: str = MARK,
    limit: int = 10,
    max_connections: int = 20,
) -> AsyncIterator[tuple[BrokerRuntime, Server]]:
    """A broker at a socket, a runtime that asks it, and its server."""
    uids = frozenset({os.geteuid()})
    made = broker(engine, mark=mark, limit=limit)
    async with serving(made, path, uids=uids, max_connections=max_connections) as server:
        yield BrokerRuntime(f"broker://{path}", timeout_s=20), server


async def said(path: Path, data: bytes, *, and_end: bool = False) -> dict[str, Any]:
    """What a broker answers to these bytes."""
    with anyio.fail_after(20):
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(data)
            if and_end:
                writer.write_eof()
            return json.loads(await reader.readline())
        finally:
            writer.transport.abort()
