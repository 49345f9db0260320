"""Clients of Jupyter that converse with a kernel in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from sandbox.errors import InvalidRequest, NotFound, NotPermitted
from sandbox.kernels import clientanswers, clientcells, conversation
from sandbox.kernels.conversation import Conversation, converse
from sandbox.kernels.events import LoggedMessage
from sandbox.kernels.jupytermessages import JupyterMessage, client_message
from sandbox.kernels.kernels import Kernels
from sandbox.kernels.origins import Origin, Origins
from sandbox.kernels.relay import Relay

from .conftest import Bench

pytestmark = pytest.mark.anyio

WAIT_S = 10


class Client:
    """One end of a conversation, with what it has heard."""

    def __init__(self, talk: Conversation, name: str) -> None:
        self.talk = talk
        self.name = name
        self.heard: list[JupyterMessage] = []
        self._hearing = talk.messages()
        self._count = 0

    async def say(self, kind: str, channel: str = "shell", **content: Any) -> str:
        """Send a message and return its id."""
        self._count += 1
        msg_id = f"{self.name}-{self._count}"
        header = {"msg_id": msg_id, "msg_type": kind, "session": self.name, "username": "me"}
        await self.talk.send(client_message(channel, header, {}, {}, content))
        return msg_id

    async def run(self, code: str, **more: Any) -> str:
        return await self.say("execute_request", code=code, **more)

    async def hear(self, kind: str, msg_id: str = "", **content: Any) -> JupyterMessage:
        """Hear on until such a message comes."""
        with anyio.fail_after(WAIT_S):
            async for message in self._hearing:
                self.heard.append(message)
                parent = message.parent_header.get("msg_id", "")
                if message.msg_type == kind and (not msg_id or parent == msg_id):
                    said = message.content
                    if all(said.get(key) == value for key, value in content.items()):
                        return message
        raise AssertionError(f"no {kind} came")

    async def done(self, msg_id: str) -> dict[str, Any]:
        """Hear on until a cell has been answered, and return its reply."""
        found: dict[str, Any] | None = None
        is_idle = False
        while found is None or not is_idle:
            with anyio.fail_after(WAIT_S):
                message = await anext(self._hearing)
            self.heard.append(message)
            if message.parent_header.get("msg_id") == msg_id:
                if message.msg_type == "execute_reply":
                    found = message.content
                is_idle |= message.content.get("execution_state") == "idle"
        return found

    def text_of(self, msg_id: str) -> str:
        """What a request has written, as far as it was heard."""
        return "".join(
            str(each.content["text"])
            for each in self.heard
            if each.msg_type == "stream" and each.parent_header.get("msg_id") == msg_id
        )


@asynccontextmanager
async def client(kernels: Kernels, name: str = "one", **more: Any) -> AsyncIterator[Client]:
    async with converse(kernels, client=name, **more) as talk:
        yield Client(talk, name)


async def started(kernels: Kernels) -> None:
    """Have the default kernel run."""
    await (await kernels.execute("pass")).wait(WAIT_S)


async def test_a_cell_is_an_execution_and_answers_to_the_clients_own_header(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await started(kernels)
        async with client(kernels) as one:
            asked = await one.run("x = 1 + 2\nx")
            reply = await one.done(asked)
        assert reply["status"] == "ok"
        kinds = [each.msg_type for each in one.heard]
        assert kinds == ["status", "execute_input", "execute_result", "execute_reply", "status"]
        for each in one.heard:
            assert each.parent_header["msg_id"] == asked
            assert each.parent_header["session"] == "one"
        (kept,) = [each for each in bench.journal.records.values() if "x = 1" in each.code]
        assert kept.execution_id != asked, "a client cannot choose the id of an execution"
        assert (await kernels.execution(kept.execution_id).wait()).status == "ok"


async def test_two_clients_and_the_agent_hear_each_others_cells(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await started(kernels)
        async with client(kernels) as one, client(kernels, "two") as two:
            asked = await one.run('print("of one")')
            await one.done(asked)
            heard = await two.hear("stream", asked, text="of one\n")
            assert heard.parent_header["session"] == "one"
            agents = await kernels.execute('print("of the agent")')
            await agents.wait(WAIT_S)
            for each in (one, two):
                await each.hear("stream", agents.execution_id, text="of the agent\n")
            replies = [each for each in two.heard if each.channel == "shell"]
            assert replies == [], "a reply is for who has asked"


async def test_what_we_ask_the_kernel_ourselves_no_client_hears(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await started(kernels)
        async with client(kernels) as one:
            await kernels.complete("x")
            asked = await one.run("1")
            await one.done(asked)
            assert {each.parent_header["msg_id"] for each in one.heard} == {asked}


async def test_other_requests_are_passed_on_and_answered(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await started(kernels)
        async with client(kernels) as one:
            await one.done(await one.run("word = 7"))
            asked = await one.say("complete_request", code="wo", cursor_pos=2)
            assert (await one.hear("complete_reply", asked)).content["matches"] == ["word"]
            asked = await one.say("kernel_info_request")
            info = (await one.hear("kernel_info_reply", asked)).content
            assert info["protocol_version"] == "5.3"
            await one.hear("status", asked, execution_state="idle")


async def test_what_a_busy_kernel_is_is_told_at_once(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await started(kernels)
        agents = await kernels.execute("sleep(60)")
        await agents.executing.wait()
        async with client(kernels) as one:
            asked = await one.say("kernel_info_request")
            await one.hear("kernel_info_reply", asked)
            await one.hear("status", agents.execution_id, execution_state="busy")
        await agents.cancel()
        await agents.wait(WAIT_S)


async def test_an_interrupt_stops_what_runs_whosever_it_is(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await started(kernels)
        async with client(kernels) as one:
            agents = await kernels.execute("sleep(60)")
            await agents.executing.wait()
            asked = await one.say("interrupt_request", channel="control")
            await one.hear("interrupt_reply", asked, status="ok")
            assert (await agents.wait(WAIT_S)).status == "interrupted"


@pytest.mark.parametrize("stops", [True, False])
async def test_what_stands_behind_a_cell_that_fails_is_left_out_if_the_client_wants(
    bench: Bench, stops: bool
) -> None:
    async with bench.controller() as kernels:
        await started(kernels)
        async with client(kernels) as one:
            asked = [
                await one.run(code, stop_on_error=stops)
                for code in ("pass", 'raise ValueError("no")', "x = 3", "x")
            ]
            states = [(await one.done(each))["status"] for each in asked]
        assert states == ["ok", "error", *(["aborted"] * 2 if stops else ["ok"] * 2)]


async def test_what_a_client_sends_when_it_knows_of_a_failure_is_run(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await started(kernels)
        async with client(kernels) as one:
            for _ in range(20):
                failing = await one.run('raise ValueError("no")')
                await one.hear("execute_reply", failing)
                assert (await one.done(await one.run("pass")))["status"] == "ok"


async def test_a_cell_asks_for_input_and_its_own_client_answers(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await started(kernels)
        async with client(kernels) as one, client(kernels, "two") as two:
            asked = await one.run('input("name? ")', allow_stdin=True)
            question = await one.hear("input_request", asked)
            assert (question.channel, question.content["prompt"]) == ("stdin", "name? ")
            await two.say("input_reply", channel="stdin", value="intruder")
            await one.say("input_reply", channel="stdin", value="Ada")
            assert (await one.done(asked))["status"] == "ok"
            assert one.text_of(asked) == "Ada\n"
            await two.hear("stream", asked)
            assert "input_request" not in [each.msg_type for each in two.heard]


@pytest.mark.parametrize("offers", [True, False])
async def test_nobody_waits_for_input_that_nobody_gives(bench: Bench, offers: bool) -> None:
    async with bench.controller() as kernels:
        await started(kernels)
        if offers:  # but goes before it answers
            async with client(kernels) as one:
                asked = await one.run('input("name? ")', allow_stdin=True)
                await one.hear("input_request", asked)
        else:
            async with client(kernels, answers_input=False) as one:
                asked = await one.run('input("name? ")', allow_stdin=True)
                assert (await one.done(asked))["ename"] == "StdinNotImplementedError"
        assert (await (await kernels.execute("pass")).wait(WAIT_S)).status == "ok"


async def test_a_death_is_told_and_the_cell_is_answered(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await started(kernels)
        async with client(kernels) as one:
            asked = [await one.run("die(3)"), await one.run("pass")]
            first = await one.done(asked[0])
            assert (first["status"], first["ename"]) == ("error", "died")
            assert "exited with code 3" in one.text_of(asked[0])
            assert (await one.done(asked[1]))["status"] == "aborted"
            states = [each.content.get("execution_state") for each in one.heard]
            assert "dead" in states
            late = await one.run("pass")
            assert (await one.done(late))["ename"] == "Conflict"
        async with client(kernels, "two") as two:
            await two.hear("status", execution_state="dead")


async def test_a_restart_by_another_is_told(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await started(kernels)
        async with client(kernels) as one:
            asked = await one.run("hang()")
            await one.hear("execute_input", asked)
            await kernels.restart()
            await one.hear("status", execution_state="restarting")
            starting = await one.hear("status", execution_state="starting")
            reply = await one.done(asked)
            assert reply["status"] == "error"
            again = await one.run("pass")
            assert (await one.done(again))["status"] == "ok"
            assert one.heard[-1].header["session"] == starting.header["session"]


async def test_a_shutdown_restarts_or_stops_the_kernel_our_way(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await started(kernels)
        async with client(kernels) as one:
            asked = await one.say("shutdown_request", channel="control", restart=True)
            await one.hear("shutdown_reply", asked, restart=True)
            assert kernels.infos[0].state == "idle"
            asked = await one.say("shutdown_request", channel="control", restart=False)
            await one.hear("shutdown_reply", asked, restart=False)
            await one.hear("status", execution_state="dead")
        assert kernels.infos == ()


async def test_what_a_policy_does_not_permit_is_refused_in_words(bench: Bench) -> None:
    def permit(tool: str) -> None:
        if tool != "execute_code":
            raise NotPermitted(f"No {tool}.")

    async with bench.controller() as kernels:
        await started(kernels)
        async with client(kernels, permit=permit) as one:
            for kind, channel, tool in (
                ("complete_request", "shell", "complete_code"),
                ("interrupt_request", "control", "interrupt_kernel"),
                ("shutdown_request", "control", "stop_kernel"),
            ):
                asked = await one.say(kind, channel, code="", cursor_pos=0)
                reply = await one.hear(kind.replace("request", "reply"), asked)
                assert (reply.content["ename"], tool in reply.content["evalue"]) == (
                    "NotPermitted",
                    True,
                )
        assert kernels.infos[0].state == "idle"


async def test_a_kind_of_message_that_is_not_known_never_reaches_the_kernel(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await started(kernels)
        async with client(kernels) as one:
            asked = await one.say("debug_request", channel="control", command="attach")
            assert (await one.hear("debug_reply", asked)).content["ename"] == "InvalidRequest"
            asked = await one.say("execute_request", channel="control", code="1")
            assert (await one.hear("execute_reply", asked)).content["status"] == "error"


async def test_a_client_that_does_not_listen_is_told_what_it_missed(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await started(kernels)
        async with client(kernels) as one:
            for _ in range(3):
                await (await kernels.execute("flood(4000000)")).wait(WAIT_S)
            note = await one.hear("stream")
            assert "too slow" in note.content["text"]
            asked = await one.run("1")
            assert (await one.done(asked))["status"] == "ok"


async def test_cells_questions_and_answers_are_bounded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clientcells, "MAX_CELLS", 3)
    monkeypatch.setattr(conversation, "MAX_OPEN", 3)
    async with bench.controller() as kernels:
        await started(kernels)
        async with client(kernels) as one:
            hanging = await one.run("sleep(60)")
            await one.hear("execute_input", hanging)
            asked = [await one.run("pass") for _ in range(4)]
            assert (await one.done(asked[-1]))["ename"] == "QuotaExceeded"
            asked = [await one.say("comm_info_request") for _ in range(4)]
            await one.hear("comm_info_reply", asked[-1], ename="QuotaExceeded")
            monkeypatch.setattr(clientanswers, "MAX_UNHEARD", 10)
            for _ in range(20):
                await one.say("debug_request", channel="control")
            with anyio.fail_after(WAIT_S):
                assert [each async for each in one.talk.messages()] == [], "it is let go"
            await kernels.interrupt()


async def test_a_conversation_goes_on_where_the_last_one_of_the_client_was(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await started(kernels)
        async with client(kernels) as one:
            asked = await one.run("sleep(0.2)\nprint(7)")
            await one.hear("execute_input", asked)
        await (await kernels.execute("pass")).wait(WAIT_S)
        async with client(kernels, position=one.talk.position) as again:
            await again.hear("stream", asked, text="7\n")
            await again.hear("execute_reply", asked)


async def test_there_is_no_conversation_with_a_kernel_that_is_not_there(bench: Bench) -> None:
    async with bench.controller() as kernels:
        with pytest.raises(NotFound):
            async with converse(kernels, "k-none"):
                pass


@pytest.mark.parametrize(
    "parts",
    [
        ("iopub", {"msg_id": "a", "msg_type": "status"}, {}, {}, {}),
        ({}, {"msg_id": "a", "msg_type": "x"}, {}, {}, {}),
        ("shell", [], {}, {}, {}),
        ("shell", {"msg_id": "a"}, {}, {}, {}),
        ("shell", {"msg_id": 1, "msg_type": "x"}, {}, {}, {}),
        ("shell", {"msg_id": "a" * 1000, "msg_type": "x"}, {}, {}, {}),
        ("shell", {"msg_id": "a", "msg_type": "x"}, "no", {}, {}),
        ("shell", {"msg_id": "a", "msg_type": "x"}, {}, {"a": "b" * 100_000}, {}),
        ("shell", {"msg_id": "a", "msg_type": "x"}, {}, {}, "no"),
        ("shell", {"msg_id": "a", "msg_type": "x"}, {}, {}, {"a": float("nan")}),
        ("shell", {"msg_id": "a", "msg_type": "x"}, {}, {}, {}, [b""] * 1000),
    ],
)
def test_what_is_no_message_is_refused(parts: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidRequest):
        client_message(*parts)


def test_what_a_kernel_says_at_length_is_passed_on_and_not_read_by_every_client() -> None:
    class Unread(LoggedMessage):
        @property
        def content(self) -> dict[str, Any]:
            raise AssertionError("it was read")

    kernel: Any = SimpleNamespace(kernel_id="k", epoch=1, origins=Origins())
    kernel.origins.note("r", Origin("mine", {"msg_id": "m"}))
    relay = Relay(kernel, "mine", lambda _: True)
    relay.owe("r", client_message("shell", {"msg_id": "m", "msg_type": "x_request"}, {}, {}, {}))
    long = b'{"execution_state":"idle","x":"' + b"x" * 70_000 + b'"}'
    for channel, kind, parent, said in (
        ("iopub", "kernel_info_reply", "", b"{}"),
        ("shell", "kernel_info_reply", "r", long),
        ("iopub", "status", "r", long),
    ):
        (told,) = relay.translated(Unread(1, 1, channel, kind, "i", parent, said))
        assert told.content_json is said
