"""What is not a yes of a person's is a no."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from sandbox.egress.wayout import Question
from sandbox.errors import NotPermitted
from sandbox.outputs.redaction import Redactor
from sandbox.policy import load
from sandbox.policy.access import ApprovePolicy
from sandbox.sessions.approvals import Approvals, Reply

pytestmark = pytest.mark.anyio


class Person:
    """Answers as it is told, and remembers what it was asked."""

    def __init__(self, *replies: Reply, objection: str = "") -> None:
        self.objection = objection
        self.replies = list(replies)
        self.asked: list[tuple[str, bool]] = []

    async def ask(self, message: str, *, may_remember: bool) -> Reply:
        self.asked.append((message, may_remember))
        if not self.replies:
            await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()
        return self.replies.pop(0)


class Record:
    """An audit log in memory."""

    def __init__(self) -> None:
        self.entries: list[Any] = []

    def record(self, entry: Any) -> None:
        self.entries.append(entry)


def approvals(record: Any = None, **approve: Any) -> Approvals:
    given = ApprovePolicy(**{"tools": ("run_command",), "timeout_s": 1, **approve})
    policy = load().get().model_copy(update={"approve": given})
    return Approvals("s-1", "alice", policy, record or Record())


def question(destination: str = "api.example.com:443", request: str = "") -> Question:
    return Question("s-1", "alice", destination, request, "domain api.example.com")


async def test_a_tool_that_the_policy_does_not_name_is_not_asked_for() -> None:
    person = Person()
    await approvals().agree("read_file", "", person)
    assert person.asked == []


async def test_a_yes_holds_once_or_for_the_session_as_was_said() -> None:
    asking, person = approvals(), Person(Reply("once"), Reply("session"))
    for _ in range(4):
        await asking.agree("run_command", "command:\n  | true", person)
    assert len(person.asked) == 2
    assert "run_command" in person.asked[0][0]
    assert "| true" in person.asked[0][0]


async def test_a_policy_that_forgets_asks_each_time_whatever_was_answered() -> None:
    asking, person = approvals(remember="never"), Person(*[Reply("session")] * 3)
    for _ in range(3):
        await asking.agree("run_command", "", person)
    assert [may_remember for _, may_remember in person.asked] == [False] * 3


@pytest.mark.parametrize(
    ("person", "said"),
    [
        (Person(Reply("declined")), "declined"),
        (Person(Reply("unable", "the client fell silent")), "fell silent"),
        (Person(objection="the client cannot ask"), "cannot ask"),
        (Person(), "nobody answered within 1 s"),
    ],
)
async def test_whatever_is_no_yes_is_a_no_that_says_why(person: Person, said: str) -> None:
    with pytest.raises(NotPermitted, match=said):
        await approvals().agree("run_command", "", person)
    with approvals().calling(person):
        pass


async def test_a_connection_is_asked_about_through_the_latest_call_that_can() -> None:
    asking = approvals()
    first, second = Person(Reply("once")), Person(objection="cannot")
    with asking.calling(first), asking.calling(second):
        answer = await asking.ask(question(request="GET /x\x1b[31m"))
    assert answer.allowed
    assert second.asked == []
    assert "api.example.com:443" in first.asked[0][0]
    assert "GET /x\\x1b[31m" in first.asked[0][0]


async def test_without_a_call_nobody_can_be_asked() -> None:
    answer = await approvals().ask(question())
    assert not answer.allowed
    assert "nobody could be asked" in answer.reason


async def test_a_yes_to_one_destination_is_none_to_another() -> None:
    asking, person = approvals(), Person(Reply("session"), Reply("declined"))
    with asking.calling(person):
        assert (await asking.ask(question())).allowed
        assert (await asking.ask(question())).allowed
        assert not (await asking.ask(question("other.example.com:443"))).allowed
    assert len(person.asked) == 2


async def test_a_flood_of_connections_is_one_question_at_a_time_and_a_no_ends_it() -> None:
    asking, person = approvals(), Person(Reply("declined"))
    with asking.calling(person):
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(asking.ask, question())
        assert not (await asking.ask(question())).allowed
    assert len(person.asked) == 1


async def test_a_question_ends_with_the_call_that_it_was_asked_through() -> None:
    asking, person, answers = approvals(timeout_s=60), Person(), []

    async def ask() -> None:
        answers.append(await asking.ask(question()))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            with asking.calling(person):
                tasks.start_soon(ask)
                while not person.asked:
                    await anyio.lowlevel.checkpoint()
    assert not answers[0].allowed
    assert "ended" in answers[0].reason


async def test_every_question_and_answer_is_put_on_record() -> None:
    record = Record()
    asking = approvals(record)
    person = Person(Reply("once"), Reply("declined"))
    with asking.calling(person):
        await asking.ask(question())
        await asking.ask(question())
    told = [(e.decision, e.subject, e.decided_by) for e in record.entries]
    assert told == [
        ("asked", "network api.example.com:443", ""),
        ("approved", "network api.example.com:443", "alice"),
        ("asked", "network api.example.com:443", ""),
        ("denied", "network api.example.com:443", ""),
    ]


async def test_a_question_that_nobody_answers_holds_up_no_other_call() -> None:
    asking, silent, present = approvals(timeout_s=60), Person(), Person(Reply("once"))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asking.agree, "run_command", "", silent)
            while not silent.asked:
                await anyio.lowlevel.checkpoint()
            await asking.agree("run_command", "", present)
            tasks.cancel_scope.cancel()
    assert not asking.is_asking


async def test_connections_are_asked_about_through_a_call_that_has_no_question() -> None:
    asking, present, silent = approvals(timeout_s=60), Person(Reply("once")), Person()
    with anyio.fail_after(5), asking.calling(present), asking.calling(silent):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asking.ask, question())
            while not silent.asked:
                await anyio.lowlevel.checkpoint()
            assert (await asking.ask(question("other.example.com:443"))).allowed
            tasks.cancel_scope.cancel()


async def test_a_question_that_was_not_put_says_so() -> None:
    asking, silent, answers = approvals(), Person(), []

    async def ask(destination: str) -> None:
        answers.append(await asking.ask(question(destination)))

    with asking.calling(silent):
        async with anyio.create_task_group() as tasks:
            for destination in ("one.example:443", "two.example:443"):
                tasks.start_soon(ask, destination)
    assert len(silent.asked) == 1
    assert sorted("was not put" in answer.reason for answer in answers) == [False, True]


async def test_neither_question_nor_record_shows_a_secret() -> None:
    record, person = Record(), Person(Reply("once"))
    policy = load().get().model_copy(update={"approve": ApprovePolicy(timeout_s=1)})
    redactor = Redactor({"key": "a-secret-value"})
    asking = Approvals("s-1", "alice", policy, record, redactor)  # type: ignore[arg-type]
    with asking.calling(person):
        await asking.ask(question("a-secret-value.example.com:443", "GET /a-secret-value"))
    assert "a-secret-value" not in str(person.asked) + str(record.entries)
    assert "[secret key].example.com:443" in person.asked[0][0]
