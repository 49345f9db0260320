"""What clients ask reaches the kernel, and what it says reaches those who are concerned."""

from __future__ import annotations

import anyio
import pytest

from sandbox.jupyter.signing import Signer

from ...support.bridged import WAIT_S, bridged

pytestmark = pytest.mark.anyio


async def test_a_reply_goes_to_who_has_asked_and_outputs_to_everybody() -> None:
    async with bridged() as bridge, bridge.client() as one, bridge.client() as other:
        await one.hear("iopub")  # the other one's welcome: whoever is there hears it
        asked = await one.ask("shell", "execute_request", code="1")
        request = await bridge.kernel.got()
        bridge.kernel.say("iopub", "stream", request, name="stdout", text="hello")
        bridge.kernel.say("shell", "execute_reply", request, status="ok")
        for client in (one, other):
            kind, parent, content = await client.hear("iopub")
            assert (kind, parent, content["text"]) == ("stream", asked, "hello")
        assert (await one.hear("shell"))[:2] == ("execute_reply", asked)
        with anyio.move_on_after(0.2) as waiting:
            await other.hear("shell")
        assert waiting.cancelled_caught


async def test_a_question_of_the_kernel_goes_to_whose_cell_it_is_and_the_answer_back() -> None:
    async with bridged() as bridge, bridge.client() as client:
        await client.ask("shell", "execute_request", code="input()")
        request = await bridge.kernel.got()
        bridge.kernel.say("stdin", "input_request", request, prompt="?")
        assert (await client.hear("stdin"))[2] == {"prompt": "?"}
        await client.ask("stdin", "input_reply", value="42")
        assert (await bridge.kernel.got(2)).content == {"value": "42"}


async def test_what_is_asked_first_waits_until_somebody_hears_what_comes_of_it() -> None:
    async with bridged() as bridge, bridge.client(subscribes=False) as early:
        asked = await early.ask("shell", "execute_request", code="1")
        async with bridge.client() as client:
            request = await bridge.kernel.got()
            bridge.kernel.say("iopub", "stream", request, name="stdout", text="first")
            assert (await client.hear("iopub"))[1:] == (asked, {"name": "stdout", "text": "first"})


async def test_what_is_not_signed_with_the_key_goes_nowhere() -> None:
    async with bridged() as bridge, bridge.client() as client:
        await client.ask("shell", "execute_request", Signer(b"another", "hmac-sha256"), code="bad")
        await client.sockets["shell"].send_multipart([b"no", b"message"])
        await client.sockets["shell"].send_multipart([b"<IDS|MSG>", b"short"])
        await client.ask("shell", "execute_request", code="good")
        assert (await bridge.kernel.got()).content["code"] == "good"
        assert len(bridge.kernel.sent) == 1


async def test_a_denial_is_told_before_the_end_of_the_cell_that_met_it() -> None:
    async with bridged() as bridge, bridge.client() as client:
        asked = await client.ask("shell", "execute_request", code="1")
        request = await bridge.kernel.got()
        bridge.kernel.denied = ("network: example.com:443 denied by `default`",)
        bridge.kernel.say("iopub", "status", request, execution_state="idle")
        kind, parent, content = await client.hear("iopub")
        assert (kind, parent, content["name"]) == ("stream", asked, "stderr")
        assert "example.com:443" in content["text"]
        assert (await client.hear("iopub"))[2] == {"execution_state": "idle"}


async def test_a_wish_to_shut_down_is_answered_and_ends_the_kernel() -> None:
    async with bridged() as bridge, bridge.client() as client:
        await client.ask("control", "shutdown_request", restart=False)
        assert (await client.hear("control"))[2] == {"status": "ok", "restart": False}
        with anyio.fail_after(WAIT_S):
            await bridge.finished.wait()
        assert bridge.ended == [(0, "")]


async def test_a_wish_to_restart_ends_the_kernel_and_keeps_its_session() -> None:
    async with bridged() as bridge, bridge.client() as client:
        await client.ask("control", "shutdown_request", restart=True)
        assert (await client.hear("control"))[2]["restart"]
        assert bridge.ended == [(0, "")]
        assert not bridge.finished.is_set()


async def test_a_dead_kernel_has_no_heartbeat_and_hears_nothing_until_it_is_restarted() -> None:
    async with bridged() as bridge, bridge.client() as client:
        beat = client.sockets["hb"]
        await beat.send(b"beat")
        assert await beat.recv() == b"beat"
        bridge.kernel.end("It was killed because the sandbox ran out of memory.")
        with anyio.fail_after(WAIT_S):
            while bridge.relay.is_alive:
                await anyio.sleep(0.01)
        assert bridge.ended == [(1, "It was killed because the sandbox ran out of memory.")]
        await client.ask("shell", "execute_request", code="for the dead")
        await beat.send(b"beat")
        with anyio.move_on_after(0.2) as waiting:
            await beat.recv()
        assert waiting.cancelled_caught
        assert bridge.kernel.sent == []
        bridge.relay.begin()
        assert await beat.recv() == b"beat"
        await client.ask("shell", "execute_request", code="for the living")
        assert (await bridge.kernel.got()).content["code"] == "for the living"


async def test_when_the_session_has_ended_nobody_listens_any_more() -> None:
    async with bridged() as bridge, bridge.client():
        bridge.kernel.end("The session is expired.", for_good=True)
        with anyio.fail_after(WAIT_S):
            while bridge.relay.is_alive:
                await anyio.sleep(0.01)
        assert bridge.ended == [(1, "The session is expired.")]
