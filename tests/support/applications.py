"""ASGI applications that run: in memory, and at a port of loopback."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import uvicorn
from starlette.types import ASGIApp


@asynccontextmanager
async def started(app: ASGIApp) -> AsyncIterator[None]:
    """An application has started when the block begins, and is told of its end."""
    is_ready, stop = anyio.Event(), anyio.Event()

    async def lifespan() -> None:
        async def receive() -> dict[str, str]:
            if not is_ready.is_set():
                return {"type": "lifespan.startup"}
            await stop.wait()
            return {"type": "lifespan.shutdown"}

        async def send(message: object) -> None:
            is_ready.set()

        await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lifespan)
        await is_ready.wait()
        yield
        stop.set()


@asynccontextmanager
async def listening(config: uvicorn.Config) -> AsyncIterator[tuple[uvicorn.Server, socket.socket]]:
    """A server in this event loop, and where it listens."""
    server = uvicorn.Server(config)
    config.load()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.lifespan = config.lifespan_class(config)
        await server.startup([listener])
        try:
            yield server, listener
        finally:
            await server.shutdown([listener])
