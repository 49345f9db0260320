"""Health says that the process serves; readiness asks the engine, but not for every question."""

from __future__ import annotations

import anyio
import httpx
import pytest
from starlette.applications import Starlette

from sandbox.errors import EngineUnavailable
from sandbox.server.health import READY_FOR_S, Health

pytestmark = pytest.mark.anyio


class Engine:
    def __init__(self) -> None:
        self.asked = 0
        self.is_down = False

    async def check(self) -> None:
        self.asked += 1
        if self.is_down:
            raise EngineUnavailable("The engine at unix:///secret/path does not answer.")


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def client(engine: Engine) -> httpx.AsyncClient:
    app = Starlette(routes=Health(engine.check).routes())
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_a_process_with_a_dead_engine_is_healthy_but_not_ready(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    engine.is_down = True
    healthy, ready = await client.get("/healthz"), await client.get("/readyz")
    assert (healthy.status_code, ready.status_code) == (200, 503)
    assert "secret" not in ready.text


async def test_asking_often_asks_the_engine_once(client: httpx.AsyncClient, engine: Engine) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(client.get, "/readyz")
    assert engine.asked == 1


async def test_readiness_comes_back_with_the_engine(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    engine.is_down = True
    assert (await client.get("/readyz")).status_code == 503
    engine.is_down = False
    with anyio.fail_after(READY_FOR_S + 5):
        while True:
            if (await client.get("/readyz")).status_code == 200:
                break
            await anyio.sleep(0.05)
