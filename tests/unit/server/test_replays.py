"""What is kept of streams for who comes back: bounded, and of each conversation its own."""

from __future__ import annotations

from typing import Any

import pytest
from mcp.server.streamable_http import EventMessage
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCResponse

from sandbox.server import replays
from sandbox.server.replays import Replay, Replays

pytestmark = pytest.mark.anyio


def answer(number: int, size_bytes: int = 10) -> JSONRPCResponse:
    return JSONRPCResponse(jsonrpc="2.0", id=number, result={"text": "x" * size_bytes})


async def after(store: Replays, replay: Replay, event_id: str) -> tuple[str | None, list[Any]]:
    sent: list[Any] = []

    async def send(event: EventMessage) -> None:
        sent.append(event.message)

    with store.serving(replay):
        return await store.replay_events_after(event_id, send), sent


async def test_what_came_after_an_event_on_its_stream_is_sent_again() -> None:
    store = Replays()
    replay = store.begin("ann")
    with store.serving(replay):
        first = await store.store_event("1", None)
        other = await store.store_event("2", None)
        await store.store_event("2", answer(2))
        last = await store.store_event("1", answer(1))
    assert await after(store, replay, first) == ("1", [answer(1)])
    assert await after(store, replay, other) == ("2", [answer(2)])
    assert await after(store, replay, last) == ("1", [])
    assert await after(store, replay, "none") == (None, [])


async def test_an_event_of_another_conversation_is_none() -> None:
    store = Replays()
    mine, others = store.begin("ann"), store.begin("ann")
    with store.serving(mine):
        first = await store.store_event("1", None)
        await store.store_event("1", answer(1))
    assert await after(store, others, first) == (None, [])
    store.end(mine)
    assert await after(store, mine, first) == (None, [])


async def test_each_principal_and_all_together_have_a_bound_and_the_oldest_goes_first() -> None:
    store = Replays(most_per_principal=20_000, most=30_000)
    kept: dict[str, Replay] = {name: store.begin(name) for name in ("ann", "bob")}
    ids: dict[str, list[str]] = {name: [] for name in kept}
    for number in range(30):
        for name, replay in kept.items():
            with store.serving(replay):
                ids[name].append(await store.store_event("1", answer(number, 1000)))
    for name, replay in kept.items():
        assert 5 <= len(replay.events) <= 10
        assert await after(store, replay, ids[name][0]) == (None, [])
        assert len((await after(store, replay, ids[name][-3]))[1]) == 2
    for replay in kept.values():
        store.end(replay)
    late = store.begin("ann")
    with store.serving(late):
        for _ in range(replays.MAX_EVENTS + 10):
            await store.store_event("1", None)
    assert len(late.events) < 20


async def test_an_answer_that_is_too_large_is_told_and_a_notification_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replays, "MAX_MESSAGE_BYTES", 1000)
    store = Replays()
    replay = store.begin("ann")
    with store.serving(replay):
        first = await store.store_event("1", None)
        params = {"message": "x" * 2000}
        said = JSONRPCNotification(jsonrpc="2.0", method="notifications/progress", params=params)
        await store.store_event("1", said)
        await store.store_event("1", answer(1, 2000))
    _, (told,) = await after(store, replay, first)
    assert isinstance(told, JSONRPCError)
    assert told.id == 1
    assert "get_execution" in told.error.message
