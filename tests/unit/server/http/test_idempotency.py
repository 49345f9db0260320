"""What is sent again with the same key is done once."""

from __future__ import annotations

import anyio
import httpx
import pytest
from starlette.responses import JSONResponse

from sandbox.errors import Conflict, InvalidRequest
from sandbox.server.http import idempotency
from sandbox.server.http.idempotency import KEPT_S, KeyReused, Replies
from sandbox.testing import FakeEngine

pytestmark = pytest.mark.anyio

KEY = {"Idempotency-Key": "7c2c1f0e"}


def answered(replies: Replies, principal: str, key: str, body: object = "x") -> None:
    assert replies.begin(principal, key, "f") is None
    replies.finish(principal, key, JSONResponse(body))


async def test_a_request_that_is_sent_again_is_answered_as_before_and_done_once(
    http: httpx.AsyncClient, session: str
) -> None:
    code = {"code": "print(1)"}
    first = await http.post(f"{session}/executions", json=code, headers=KEY)
    again = await http.post(f"{session}/executions", json=code, headers=KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert first.headers["location"] == again.headers["location"]
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert len((await http.get(f"{session}/executions")).json()["executions"]) == 1


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("executions", {"code": "print(2)"}, {}),
        ("executions?wait=1", {"code": "print(1)"}, {}),
        ("commands", {"command": "print(1)"}, {}),
        ("executions", {"code": "print(1)"}, {"Sandbox-Session": "other"}),
    ],
)
async def test_a_key_of_another_request_is_refused(
    http: httpx.AsyncClient,
    session: str,
    path: str,
    body: dict[str, str],
    headers: dict[str, str],
) -> None:
    await http.post(f"{session}/executions", json={"code": "print(1)"}, headers=KEY)
    other = await http.post(f"{session}/{path}", json=body, headers={**KEY, **headers})
    assert other.status_code == 422
    assert other.json()["code"] == "idempotency_key_reused"
    assert len((await http.get(f"{session}/executions")).json()["executions"]) == 1


async def test_a_request_that_is_sent_while_the_first_is_under_way_is_a_conflict(
    http: httpx.AsyncClient, session: str
) -> None:
    code, statuses = {"code": "sleep(30)"}, list[int]()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                answer = await http.post(f"{session}/executions", json=code, headers=KEY)
                statuses.append(answer.status_code)

            tasks.start_soon(run)
            while not (await http.get(f"{session}/executions")).json()["executions"]:
                await anyio.sleep(0.01)
            second = await http.post(f"{session}/executions", json=code, headers=KEY)
            assert (second.status_code, second.json()["code"]) == (409, "conflict")
            await http.post(f"{session}/kernels/k-default/interrupt")
    assert statuses == [201]


async def test_a_refused_request_leaves_its_key_as_good_as_new(
    http: httpx.AsyncClient, engine: FakeEngine
) -> None:
    wrong = await http.post("/mcp/v1/sessions", json={"policy": "absent"}, headers=KEY)
    assert wrong.status_code == 404 or wrong.status_code == 400
    engine.is_down = True
    assert (await http.post("/mcp/v1/sessions", json={}, headers=KEY)).status_code == 503
    engine.is_down = False
    made = await http.post("/mcp/v1/sessions", json={}, headers=KEY)
    assert made.status_code == 201
    again = await http.post("/mcp/v1/sessions", json={}, headers=KEY)
    assert again.json() == made.json()


async def test_what_was_done_in_part_is_not_done_again(
    http: httpx.AsyncClient, session: str
) -> None:
    book = f"{session}/notebooks/n.ipynb"
    await http.put(book)
    cell = {"cell_index": 0, "cell_source": "die(3)"}
    assert (await http.post(f"{book}/cells/execute", json=cell)).json()["status"] == "died"
    first = await http.post(f"{book}/cells/execute", json=cell, headers=KEY)
    assert (first.status_code, first.json()["code"]) == (409, "partly_done")
    assert "inserted and not run" in first.json()["detail"]
    again = await http.post(f"{book}/cells/execute", json=cell, headers=KEY)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert (await http.get(f"{book}/cells")).json()["total"] == 2


@pytest.mark.parametrize("key", ["", "x" * 201, "a\tb"])
async def test_what_is_no_key_is_refused(http: httpx.AsyncClient, key: str) -> None:
    with pytest.raises(InvalidRequest):
        Replies().begin("p", key, "f")


def test_keys_of_different_principals_are_different_keys() -> None:
    replies = Replies()
    answered(replies, "alice", "k")
    assert replies.begin("mallory", "k", "f") is None
    with pytest.raises(KeyReused):
        replies.begin("alice", "k", "g")


def test_an_answer_is_kept_for_a_day() -> None:
    now = [0.0]
    replies = Replies(lambda: now[0])
    answered(replies, "p", "k")
    now[0] = KEPT_S - 1
    assert replies.begin("p", "k", "f") is not None
    now[0] = KEPT_S
    assert replies.begin("p", "k", "f") is None


def test_what_is_kept_is_bounded_and_one_principal_takes_nothing_from_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(idempotency, "MAX_KEYS_PER_PRINCIPAL", 3)
    monkeypatch.setattr(idempotency, "MAX_BYTES_PER_PRINCIPAL", 10_000)
    monkeypatch.setattr(idempotency, "MAX_ANSWER_BYTES", 6000)
    replies = Replies()
    answered(replies, "alice", "k")
    for number in range(9):
        answered(replies, "mallory", str(number), "x" * 5000)
    assert replies.size_bytes < 20_000
    assert replies.begin("alice", "k", "f") is not None
    with pytest.raises(Conflict, match="not kept"):
        replies.begin("mallory", "7", "f")
    assert replies.begin("mallory", "8", "f") is not None
    assert replies.begin("mallory", "1", "f") is None, "its oldest keys are gone"


def test_what_is_kept_of_all_principals_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "MAX_KEYS", 5)
    monkeypatch.setattr(idempotency, "MAX_BYTES", 12_000)
    replies = Replies()
    for number in range(9):
        answered(replies, f"p{number}", "k", "x" * 5000)
    assert replies.size_bytes <= 12_000
    assert replies.begin("p8", "k", "f") is not None
    with pytest.raises(Conflict, match="not kept"):
        replies.begin("p4", "k", "f")
    assert replies.begin("p3", "k", "f") is None, "the oldest keys are gone"


def test_a_large_answer_is_not_kept_and_what_it_answers_is_not_done_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(idempotency, "MAX_ANSWER_BYTES", 10)
    replies = Replies()
    answered(replies, "p", "k", "x" * 20)
    with pytest.raises(Conflict, match="not kept"):
        replies.begin("p", "k", "f")
