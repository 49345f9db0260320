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

from sandbox.broker import Broker, Ledger, Rules, serving
from sandbox.broker.server import Server
from sandbox.mounts import sources
from sandbox.policy import load, seccomp_profile
from sandbox.roots import Root
from sandbox.runtimes.base import ContainerRuntime, EngineInfo
from sandbox.runtimes.broker import BrokerRuntime
from sandbox.spec import ContainerSpec, SessionIdentity, compile_spec, new_session_id, new_uid

ENGINE = EngineInfo("fake", "0", "0", 2, ("runc", "runsc"), True, "x86_64", 8 * 1024**3, 2)
MARK = "f" * 32
ROOTS = (Root("datasets", "/srv/datasets"),)


def image_for(name: str) -> str:
    return f"sandbox/{name}:test"


def rules(**options: Any) -> Rules:
    return Rules(load(), seccomp_profile(), image_for, **{"roots": ROOTS, **options})


def spec(
    *,
    runtime: str = "runc",
    policy: str = "offline",
    variables: dict[str, str] | None = None,
    **identity: Any,
) -> ContainerSpec:
    """The spec of a new session, as an honest controller compiles it."""
    now = time.time()
    chosen = load().get(policy)
    fields: dict[str, Any] = {
        "session_id": new_session_id(),
        "principal": "somebody",
        "owner": secrets.token_hex(16),
        "uid": new_uid(),
        "created_at": now,
        "expires_at": now + chosen.limits.lifetime_s,
    }
    return compile_spec(
        chosen,
        SessionIdentity(**(fields | identity)),
        image=image_for(chosen.image),
        runtimes=ENGINE.runtimes,
        seccomp=seccomp_profile(),
        mounts=sources(chosen, ROOTS),
        runtime_override=runtime,
        cpus_available=ENGINE.cpus,
        variables=variables,
    )


def broker(engine: ContainerRuntime, *, mark: str = MARK, limit: int = 10) -> Broker:
    return Broker(engine, rules(), Ledger(engine, mark, limit))


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
