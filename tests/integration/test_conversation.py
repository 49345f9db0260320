"""Clients of Jupyter that converse with real kernels, in process."""

from __future__ import annotations

from itertools import count
from typing import Any

import anyio
import pytest

from sandbox.kernels.conversation import Conversation, converse
from sandbox.kernels.jupytermessages import JupyterMessage, client_message
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller

pytestmark = pytest.mark.anyio

ALICE = Caller("alice")
WAIT_S = 60
COUNT = count()
ECHO = """
def opened(comm, message):
    def echo(message):
        heard = b"<" + bytes(message["buffers"][0])
        comm.send({"heard": message["content"]["data"]}, buffers=[heard])
    comm.on_msg(echo)
get_ipython().kernel.comm_manager.register_target("echo", opened)
"""


async def say(
    talk: Conversation, kind: str, channel: str = "shell", *buffers: bytes, **content: Any
) -> str:
    header = {"msg_id": f"m-{next(COUNT)}", "msg_type": kind, "session": "s"}
    await talk.send(client_message(channel, header, {}, {}, content, buffers))
    return header["msg_id"]


async def hear(hearing: Any, kind: str, parent: str = "") -> JupyterMessage:
    with anyio.fail_after(WAIT_S):
        async for message in hearing:
            if message.msg_type == kind and parent in ("", message.parent_header.get("msg_id")):
                return message
    raise AssertionError(f"no {kind} came")


async def test_a_real_kernel_asks_for_input_and_is_given_it(manager: SessionManager) -> None:
    session = await manager.open(ALICE, policy="offline")
    await (await session.kernels.execute("x = 'known'")).wait()
    async with converse(session.kernels) as talk:
        hearing = talk.messages()
        code = "import getpass; print(x, input('name? '), getpass.getpass('word? '))"
        asked = await say(talk, "execute_request", code=code, allow_stdin=True)
        question = await hear(hearing, "input_request", asked)
        assert question.content == {"prompt": "name? ", "password": False}
        await say(talk, "input_reply", "stdin", value="Ada")
        question = await hear(hearing, "input_request", asked)
        assert question.content == {"prompt": "word? ", "password": True}
        await say(talk, "input_reply", "stdin", value="secret")
        assert (await hear(hearing, "stream", asked)).content["text"] == "known Ada secret\n"
        assert (await hear(hearing, "execute_reply", asked)).content["status"] == "ok"
        refused = await say(talk, "execute_request", code="input()", allow_stdin=False)
        reply = (await hear(hearing, "execute_reply", refused)).content
        assert reply["ename"] == "StdinNotImplementedError"


async def test_an_input_that_nobody_gives_is_interrupted(manager: SessionManager) -> None:
    session = await manager.open(ALICE, policy="offline")
    await (await session.kernels.execute("1")).wait()
    async with converse(session.kernels) as talk:
        asked = await say(talk, "execute_request", code="input('?')", allow_stdin=True)
        await hear(talk.messages(), "input_request", asked)
    with anyio.fail_after(WAIT_S):
        assert (await (await session.kernels.execute("2")).wait()).status == "ok"


async def test_comm_messages_with_buffers_go_both_ways(manager: SessionManager) -> None:
    session = await manager.open(ALICE, policy="offline")
    await (await session.kernels.execute(ECHO)).wait()
    async with converse(session.kernels) as talk, converse(session.kernels) as beside:
        hearing = talk.messages()
        await say(talk, "comm_open", comm_id="c1", target_name="echo", data={})
        said = await say(talk, "comm_msg", "shell", b"\x00\xff" * 1000, comm_id="c1", data={"n": 1})
        answer = await hear(hearing, "comm_msg", said)
        assert answer.content["data"] == {"heard": {"n": 1}}
        assert answer.buffers == (b"<" + b"\x00\xff" * 1000,)
        info = await say(talk, "comm_info_request", target_name="echo")
        assert "c1" in (await hear(hearing, "comm_info_reply", info)).content["comms"]
        told = await hear(beside.messages(), "comm_msg")
        assert told.buffers == answer.buffers, "whoever else listens hears it, too"


async def test_the_rest_of_the_protocol_reaches_a_real_kernel(manager: SessionManager) -> None:
    session = await manager.open(ALICE, policy="offline")
    await (await session.kernels.execute("word = 7")).wait()
    async with converse(session.kernels) as talk:
        hearing = talk.messages()
        info = await say(talk, "kernel_info_request")
        told = (await hear(hearing, "kernel_info_reply", info)).content
        assert told["implementation"] == "ipython"
        assert "kernel subshells" not in told.get("supported_features", [])
        asked = await say(
            talk, "execute_request", code="", silent=True, user_expressions={"a": "word + 1"}
        )
        reply = (await hear(hearing, "execute_reply", asked)).content
        assert reply["user_expressions"]["a"]["data"]["text/plain"] == "8"
        asked = await say(
            talk, "history_request", raw=True, output=False, hist_access_type="tail", n=1
        )
        assert (await hear(hearing, "history_reply", asked)).content["status"] == "ok"
        asked = await say(talk, "is_complete_request", code="for x in y:")
        assert (await hear(hearing, "is_complete_reply", asked)).content["status"] == "incomplete"
        slow = await say(
            talk, "execute_request", code="import time; print('on', flush=True); time.sleep(60)"
        )
        await hear(hearing, "stream", slow)  # from here on an interrupt is heard
        stop = await say(talk, "interrupt_request", "control")
        await hear(hearing, "interrupt_reply", stop)
        reply = (await hear(hearing, "execute_reply", slow)).content
        assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
