"""What a conversation leaves to the next one of its token, and to nobody else."""

from __future__ import annotations

import secrets

import anyio
import pytest

from sandbox.errors import Conflict, NotFound, SessionLost
from sandbox.sessions.conversations import QUIET_S, Conversation, Conversations
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller, passing_key
from sandbox.sessions.notices import noticing
from sandbox.sessions.session import Session

from .controllers import Controllers, run

pytestmark = pytest.mark.anyio


class Client:
    """A client of alice's that shakes hands for each conversation that it begins."""

    def __init__(
        self, manager: SessionManager, application: str = "t1", principal: str = "alice"
    ) -> None:
        self.manager = manager
        self.application = application
        self.principal = principal

    def begin(self) -> tuple[Conversation, Caller]:
        key = passing_key(self.application, secrets.token_hex(8))
        return self.manager.conversations.begin(key), Caller(self.principal, key)

    def end(self, conversation: Conversation) -> None:
        self.manager.conversations.end(conversation)

    async def once(self, code: str) -> tuple[str, str, list[str]]:
        """A conversation of one call: the session, what it wrote, and what else it was told."""
        conversation, caller = self.begin()
        with self.manager.conversations.serving(conversation), noticing() as notices:
            session = await self.manager.get(caller)
            result = await run(session, code)
        self.end(conversation)
        return session.session_id, "".join(each["text"] for each in result.outputs), notices


async def test_a_conversation_goes_on_where_one_that_is_over_left_off_and_is_told_so(
    manager: SessionManager, controllers: Controllers
) -> None:
    client = Client(manager)
    first, _, told = await client.once("x = 41")
    assert told == []
    for _ in range(6):
        session_id, text, told = await client.once("print(x)")
        assert (session_id, text) == (first, "41\n")
        assert len(told) == 1
        assert first in told[0]
        assert "variables and files are kept" in told[0]
    assert len(controllers.container_ids()) == 1


async def test_all_that_a_conversation_had_open_goes_on_with_the_next_one(
    manager: SessionManager,
) -> None:
    client = Client(manager)
    one, first = client.begin()
    await manager.get(first)
    other = await manager.open(first, policy="tight")
    client.end(one)
    two, second = client.begin()
    assert (await manager.open(second, policy="tight")).session_id == other.session_id
    client.end(two)
    _, third = client.begin()
    assert (await manager.open(third, policy="tight")).session_id == other.session_id
    assert len(manager.list(third)) == 2


async def test_the_next_one_reads_a_terminal_from_where_the_last_one_was(
    manager: SessionManager,
) -> None:
    client = Client(manager)
    one, first = client.begin()
    session = await manager.get(first)
    terminal_id = (await session.terminals.open()).terminal_id
    await session.terminals.write(terminal_id, "echo first", ["enter"])
    seen = await session.terminals.read(terminal_id, 2, reader=first.default_key)
    assert "first" in seen.new_text
    client.end(one)
    _, second = client.begin()
    session = await manager.get(second)
    await session.terminals.write(terminal_id, "echo second", ["enter"])
    new = await session.terminals.read(terminal_id, 2, reader=second.default_key)
    assert "second" in new.new_text
    assert "first" not in new.new_text


async def test_a_session_of_another_policy_is_opened_beside_the_one_that_was_left(
    manager: SessionManager,
) -> None:
    client = Client(manager)
    left, _, _ = await client.once("x = 1")
    conversation, caller = client.begin()
    with noticing() as told:
        opened = await manager.open(caller, policy="tight")
    assert opened.session_id != left
    assert left in told[0]
    client.end(conversation)
    assert (await client.once("print(x)"))[:2] == (left, "1\n")


async def test_two_conversations_that_are_held_at_once_keep_their_own(
    manager: SessionManager,
) -> None:
    client = Client(manager)
    one, first = client.begin()
    two, second = client.begin()
    with manager.conversations.serving(one):  # the stream that it listens to
        mine = await manager.get(first)
        with manager.conversations.serving(two):
            assert (await manager.get(second)).session_id != mine.session_id
        assert (await manager.get(first)).session_id == mine.session_id


async def test_one_that_called_since_the_newer_one_began_keeps_its_own(
    manager: SessionManager,
) -> None:
    client = Client(manager)
    one, first = client.begin()
    _, second = client.begin()
    with manager.conversations.serving(one):
        mine = await manager.get(first)
    assert (await manager.get(second)).session_id != mine.session_id
    assert (await manager.get(first)).session_id == mine.session_id


async def test_one_that_called_once_and_says_no_goodbye_is_replaced_by_the_next(
    manager: SessionManager,
) -> None:
    client = Client(manager)
    one, first = client.begin()
    with manager.conversations.serving(one):
        left = await manager.get(first)
    _, second = client.begin()
    assert (await manager.get(second)).session_id == left.session_id


async def test_who_comes_back_to_what_was_taken_over_is_told_once_and_then_gets_a_new_one(
    manager: SessionManager,
) -> None:
    client = Client(manager)
    one, first = client.begin()
    with manager.conversations.serving(one):
        left = await manager.get(first)
    two, second = client.begin()
    with manager.conversations.serving(two):
        await manager.get(second)
        with manager.conversations.serving(one):
            with pytest.raises(Conflict) as caught:
                await manager.get(first)
            assert left.session_id in caught.value.message
            assert "Sandbox-Session" in caught.value.remedy
            assert (await manager.get(first)).session_id != left.session_id


def test_one_of_several_calls_gives_way_when_it_was_quiet_for_a_while() -> None:
    now = 0.0
    conversations = Conversations(lambda: now)
    old = conversations.begin(passing_key("t1", "old"))
    for _ in range(2):
        with conversations.serving(old):
            conversations.called(old.key)
    new = conversations.begin(passing_key("t1", "new"))
    assert not conversations.gives_way(old.key, new.key)
    now = QUIET_S
    assert conversations.gives_way(old.key, new.key)


async def test_of_two_that_come_at_once_one_takes_a_session_over(
    manager: SessionManager,
) -> None:
    client = Client(manager)
    left, _, _ = await client.once("x = 1")
    found: list[str] = []

    async def come() -> None:
        conversation, caller = client.begin()
        with manager.conversations.serving(conversation):
            found.append((await manager.get(caller)).session_id)
            await anyio.sleep(0.2)

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(come)
    assert found.count(left) == 1
    assert len(set(found)) == 4


@pytest.mark.parametrize(
    ("application", "principal"), [("t2", "alice"), ("t1", "bob"), ("t", "alice")]
)
async def test_no_other_token_or_principal_takes_anything_over(
    manager: SessionManager, application: str, principal: str
) -> None:
    left, _, _ = await Client(manager).once("x = 1")
    session_id, _, told = await Client(manager, application, principal).once("y = 1")
    assert session_id != left
    assert told == []


async def test_what_lasts_is_not_taken_over_and_takes_nothing_over(
    manager: SessionManager,
) -> None:
    left, _, _ = await Client(manager).once("x = 1")
    named = await manager.get(Caller("alice", "header:mine"))
    default = await manager.get(Caller("alice"))
    assert len({left, named.session_id, default.session_id}) == 3
    for _ in range(2):
        assert (await Client(manager).once("print(x)"))[0] == left


async def test_a_policy_that_the_caller_may_not_use_is_not_taken_over(
    manager: SessionManager,
) -> None:
    client = Client(manager)
    left, _, _ = await client.once("x = 1")
    _, caller = client.begin()
    narrow = Caller("alice", caller.default_key, policies=("tight",))
    assert (await manager.get(narrow)).session_id != left


async def test_what_nobody_takes_over_ends_soon_and_the_next_one_is_told(
    controllers: Controllers,
) -> None:
    async with controllers.running(left_session_s=300) as manager:
        client = Client(manager)
        left, _, _ = await client.once("x = 1")
        await manager.sweep()
        (info,) = manager.list(Caller("alice"))
        assert info.idle_expires_at - info.created_at < 310
        controllers.ahead_s = 301
        await manager.sweep()
        assert manager.list(Caller("alice")) == []
        with pytest.raises(SessionLost) as caught:
            await manager.get(Caller("alice"), left)
        assert "its conversation was over" in caught.value.message
        opened, _, told = await client.once("y = 1")
        assert opened != left
        assert left in told[0]
        assert "expired" in told[0]
        assert (await client.once("print(y)"))[1] == "1\n"


async def test_what_is_taken_over_lives_on_for_its_whole_idle_time(
    controllers: Controllers,
) -> None:
    async with controllers.running(left_session_s=300) as manager:
        client = Client(manager)
        left, _, _ = await client.once("x = 1")
        await manager.sweep()
        conversation, caller = client.begin()
        with manager.conversations.serving(conversation):
            await manager.get(caller)
        controllers.ahead_s = 301
        await manager.sweep()
        assert (await manager.get(caller)).session_id == left


async def test_with_a_wait_of_zero_nothing_is_taken_over_and_what_is_left_ends_at_once(
    controllers: Controllers,
) -> None:
    async with controllers.running(left_session_s=0) as manager:
        client = Client(manager)
        first, _, _ = await client.once("x = 1")
        second, _, told = await client.once("y = 1")
        assert first != second
        assert told == []
        await manager.sweep()
        assert manager.list(Caller("alice")) == []


async def test_closing_without_an_id_closes_what_the_last_conversation_left(
    manager: SessionManager, controllers: Controllers
) -> None:
    client = Client(manager)
    left, _, _ = await client.once("x = 1")
    _, caller = client.begin()
    assert (await manager.close(caller)).session_id == left
    assert controllers.container_ids() == []
    with pytest.raises(NotFound):
        await manager.close(caller)


async def test_what_is_named_by_a_conversation_of_the_token_goes_on_with_that_one(
    manager: SessionManager,
) -> None:
    client = Client(manager)
    left, _, _ = await client.once("x = 1")
    one, first = client.begin()
    await manager.get(first, left)
    with manager.conversations.serving(one):
        _, second = client.begin()
        assert (await manager.get(second)).session_id != left
        assert (await manager.get(first)).session_id == left


async def test_the_next_conversation_after_a_restart_goes_on_too(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as first:
        left, _, _ = await Client(first).once("x = 41 + 1")
    async with controllers.running(keep=True) as second:
        for application, principal in (("t2", "alice"), ("t1", "bob")):
            assert (await Client(second, application, principal).once("y = 1"))[0] != left
        session_id, text, told = await Client(second).once("print(x)")
        assert (session_id, text) == (left, "42\n")
        assert left in told[0]
    async with controllers.running() as third:
        assert (await Client(third).once("print(x)"))[:2] == (left, "42\n")


async def test_a_session_that_ended_before_its_controller_came_back_is_told(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as first:
        left, _, _ = await Client(first).once("x = 1")
    for container_id in controllers.container_ids():
        del controllers.engine.containers[container_id]
    async with controllers.running() as second:
        opened, _, told = await Client(second).once("y = 1")
        assert opened != left
        assert left in told[0]
        assert "lost" in told[0]


async def test_where_several_are_left_by_a_restart_each_conversation_is_told_once_of_all(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as first:
        client = Client(first)
        left: list[Session] = []
        for conversation, caller in [client.begin() for _ in range(2)]:
            with first.conversations.serving(conversation):
                left.append(await first.get(caller))
        lasting = await first.get(Caller("alice", "header:mine"))
        await run(left[0], "x = 1")
    async with controllers.running() as second:
        client = Client(second)
        one, other = client.begin()[1], client.begin()[1]
        for caller in (one, other):
            with pytest.raises(Conflict) as caught:
                await second.get(caller)
            assert all(each.session_id in str(caught.value) for each in left)
            assert lasting.session_id not in str(caught.value)
        found = await second.get(one, left[0].session_id)
        assert (await run(found, "print(x)")).outputs[0]["text"] == "1\n"
        assert (await second.get(one)).session_id == left[0].session_id
        assert (await second.get(Caller("bob", client.begin()[1].default_key))).is_usable
