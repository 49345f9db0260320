"""Calls that go on while their clients are asked: they run once, whoever comes back how often."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup
from mcp_types import CallToolResult, ElicitResult, InputRequiredResult

from sandbox.bulkheads.shares import Owner
from sandbox.errors import Conflict, QuotaExceeded
from sandbox.server.elicitation import (
    MAX_VALUE,
    PARKED_OF_PRINCIPAL,
    PARKED_OF_SESSION,
    Parking,
    asker_for,
    told,
)
from sandbox.sessions.approvals import Reply

pytestmark = pytest.mark.anyio


@pytest.fixture
async def tasks() -> AsyncIterator[TaskGroup]:
    async with anyio.create_task_group() as tasks:
        yield tasks
        tasks.cancel_scope.cancel()


class Work:
    """A call that asks once and counts how often it ran."""

    def __init__(self, *, is_endless: bool = False) -> None:
        self.is_endless = is_endless
        self.times = 0
        self.replies: list[Reply] = []
        self.was_cancelled = False

    async def __call__(self) -> CallToolResult:
        self.times += 1
        asker = asker_for(None)  # type: ignore[arg-type]  # the parked call stands in the context
        try:
            self.replies.append(await asker.ask("May it?", may_remember=True))
            if self.is_endless:
                await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            self.was_cancelled = True
            raise
        return CallToolResult(content=[])


def accepted(question: InputRequiredResult, **content: bool) -> dict[str, ElicitResult]:
    key = next(iter(question.input_requests or {}))
    return {key: ElicitResult(action="accept", content=dict(content))}


async def asked(parking: Parking, work: Work) -> tuple[InputRequiredResult, str]:
    question = await parking.begin(Owner("alice", "s-1"), "", work)
    assert isinstance(question, InputRequiredResult)
    assert question.request_state is not None
    return question, question.request_state


async def test_a_call_runs_once_however_often_its_client_comes_back(tasks: TaskGroup) -> None:
    parking, work = Parking(tasks.start_soon), Work()
    question, state = await asked(parking, work)
    again = await parking.resume("alice", state, None)
    assert again == question
    result = await parking.resume("alice", state, accepted(question, remember=True))  # type: ignore[arg-type]
    assert isinstance(result, CallToolResult)
    await anyio.wait_all_tasks_blocked()
    with pytest.raises(Conflict):
        await parking.resume("alice", state, accepted(question))  # type: ignore[arg-type]
    assert work.times == 1
    assert work.replies == [Reply("session")]


async def test_another_principal_cannot_answer(tasks: TaskGroup) -> None:
    parking, work = Parking(tasks.start_soon), Work()
    question, state = await asked(parking, work)
    for principal, call_id in (("mallory", state), ("alice", "guessed")):
        with pytest.raises(Conflict):
            await parking.resume(principal, call_id, accepted(question))  # type: ignore[arg-type]
    assert work.replies == []


@pytest.mark.parametrize(
    "given",
    [
        {"approval-1": ElicitResult(action="decline")},
        {"approval-1": ElicitResult(action="cancel")},
        {"approval-1": ElicitResult(action="accept", content={"remember": "perhaps"})},
    ],
)
async def test_what_is_no_yes_is_a_no(tasks: TaskGroup, given: dict[str, ElicitResult]) -> None:
    parking, work = Parking(tasks.start_soon), Work()
    _, state = await asked(parking, work)
    await parking.resume("alice", state, given)  # type: ignore[arg-type]
    assert work.replies[0].decision in ("declined", "unable")


async def test_an_answer_to_another_question_is_none(tasks: TaskGroup) -> None:
    parking, work = Parking(tasks.start_soon), Work()
    question, state = await asked(parking, work)
    other = {"approval-2": ElicitResult(action="accept", content={})}
    assert await parking.resume("alice", state, other) == question  # type: ignore[arg-type]
    assert work.replies == []


async def test_a_client_that_gives_up_ends_the_work(tasks: TaskGroup) -> None:
    parking, work = Parking(tasks.start_soon), Work(is_endless=True)
    async with anyio.create_task_group() as clients:

        async def wait_for_it() -> None:
            question, state = await asked(parking, work)
            await parking.resume("alice", state, accepted(question))  # type: ignore[arg-type]

        clients.start_soon(wait_for_it)
        await anyio.wait_all_tasks_blocked()
        assert work.replies == [Reply("once")]
        clients.cancel_scope.cancel()
    with anyio.fail_after(5):
        while not work.was_cancelled:
            await anyio.lowlevel.checkpoint()


async def test_one_principals_questions_take_no_place_of_anothers(tasks: TaskGroup) -> None:
    parking = Parking(tasks.start_soon)
    for number in range(PARKED_OF_PRINCIPAL):
        owner = Owner("mallory", f"s-{number // PARKED_OF_SESSION}")
        assert isinstance(await parking.begin(owner, "", Work()), InputRequiredResult)
    with pytest.raises(QuotaExceeded, match="which is your share"):
        await parking.begin(Owner("mallory", "s-new"), "", Work())
    await asked(parking, Work())


async def test_one_sessions_questions_take_no_place_of_its_principals_others(
    tasks: TaskGroup,
) -> None:
    parking = Parking(tasks.start_soon)
    for _ in range(PARKED_OF_SESSION):
        await parking.begin(Owner("alice", "s-bad"), "", Work())
    with pytest.raises(QuotaExceeded, match="this session has"):
        await parking.begin(Owner("alice", "s-bad"), "", Work())
    await asked(parking, Work())


async def test_a_call_that_is_given_up_frees_its_place_at_once(tasks: TaskGroup) -> None:
    parking = Parking(tasks.start_soon)
    with anyio.fail_after(20):
        for _ in range(PARKED_OF_SESSION + 3):
            with anyio.move_on_after(0.01):

                async def never() -> CallToolResult:
                    await anyio.sleep_forever()
                    raise AssertionError

                await parking.begin(Owner("alice", "s-1"), "", never)
            for _ in range(10):  # turns of the loop, in which what was given up ends
                await anyio.lowlevel.checkpoint()
    await asked(parking, Work())


def test_a_person_is_shown_bounded_text_without_control_characters() -> None:
    shown = told({"command": "ls\x1b[2K\n\u202egnp" + "x" * 5000, "cwd": "", "session_id": "s"})
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert shown.startswith("command:\n  | ls\\x1b[2K\n  | \\u202egnp")
    assert "MORE CHARACTERS THAT ARE NOT SHOWN" in shown
    assert len(shown) < MAX_VALUE + 200
