"""A controller behind a broker, and the broker killed in the middle of its work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import anyio
import docker
import pytest

from ..support.brokerprocess import BrokerProcess, broker_process
from ..support.calls import call, written
from ..support.served import close_all, sandbox, serve

pytestmark = pytest.mark.anyio


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker; no container of its own may be left at the end."""
    with broker_process(tmp_path) as running:
        yield running
    mark = (tmp_path / "broker-state/controllers/broker/owner").read_text().strip()
    client = docker.from_env()
    left = client.containers.list(all=True, filters={"label": f"io.sandbox.broker={mark}"})
    for container in left:
        container.remove(force=True)
    client.close()
    assert left == []


async def test_a_killed_broker_costs_no_variable_and_not_even_the_cell_that_runs(
    broker: BrokerProcess, tmp_path: Path
) -> None:
    with serve(tmp_path, SANDBOX_ENGINE=broker.address) as served:
        async with served.client() as client:
            assert (
                written(await call(client, "execute_code", code="kept = 42; print(kept)")) == "42\n"
            )
            running = await call(
                client,
                "execute_code",
                code="import time\nfor n in range(8):\n    print(n)\n    time.sleep(0.5)",
                wait=0.2,
            )
            assert running["status"] == "running"
            broker.kill()
            refused = await client.call_tool("open_session", {"reuse": False})
            assert refused.is_error
            assert "broker" in str(refused.content)
            broker.start()
            with anyio.fail_after(60):
                while running["status"] == "running":
                    running = await call(
                        client, "get_execution", execution_id=running["execution_id"], wait=5
                    )
            assert running["status"] == "ok"
            assert written(running).split() == [str(n) for n in range(8)]
            assert written(await call(client, "execute_code", code="print(kept)")) == "42\n"
        close_all(served)


async def test_a_controller_comes_back_to_its_sessions_through_the_broker(
    broker: BrokerProcess, tmp_path: Path
) -> None:
    with serve(tmp_path, SANDBOX_ENGINE=broker.address) as first:
        async with first.client() as client:
            await call(client, "execute_code", code="kept = 42")
        first.process.kill()
        first.process.wait(30)
    with serve(tmp_path, SANDBOX_ENGINE=broker.address) as second:
        async with second.client() as client:
            assert written(await call(client, "execute_code", code="print(kept)")) == "42\n"
        close_all(second)


def test_the_doctor_looks_through_the_broker(broker: BrokerProcess, tmp_path: Path) -> None:
    words = ("doctor", "--json", "--engine", broker.address)
    done = sandbox(tmp_path / "state", *words)
    found = {row["name"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert found["image"]["verdict"] == "ok"
    broker.kill()
    done = sandbox(tmp_path / "state", *words)
    found = {row["name"]: row for row in json.loads(done.stdout)}
    assert (done.returncode, found["engine"]["verdict"]) == (1, "fail")
    assert "sandbox broker" in found["engine"]["remedy"]
    broker.start()


def test_a_second_broker_of_the_same_place_is_refused_in_words(
    broker: BrokerProcess, tmp_path: Path
) -> None:
    for state, reason in ((tmp_path / "broker-state", "uses this"), (tmp_path / "x", "listens")):
        done = sandbox(state, "broker", "--socket", str(broker.path))
        assert done.returncode == 2
        assert reason in done.stderr
