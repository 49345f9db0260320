"""Executions as resources: read as the tool is called, by the same callers and on record."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp_types import INVALID_PARAMS

from sandbox import resources
from sandbox.audit import digest_of
from sandbox.outputs.redaction import Redactor
from sandbox.policy import load
from sandbox.sessions.manager import SessionManager

from ...support.results import png
from .test_recording import folder as folder
from .test_recording import last_call
from .test_scopes import Front
from .test_scopes import front as front
from .test_tools import MUTE

pytestmark = pytest.mark.anyio

PICTURE = base64.b64encode(png(30, 20)).decode()
CODE = (
    f'print("hello-Zq7-pAx")\ndisplay("image/png", "{PICTURE}")\ndisplay("text/html", "<b>x</b>")'
)


async def run(client: Client, code: str = CODE, **more: Any) -> str:
    result = await client.call_tool("execute_code", {"code": code, **more})
    assert result.structured_content is not None
    return result.structured_content["execution_id"]


async def test_an_execution_is_read_with_its_outputs(client: Client) -> None:
    execution_id = await run(client)
    (read,) = (await client.read_resource(f"execution://{execution_id}")).contents
    assert read.mime_type == "application/json"
    told = json.loads(read.text)
    assert (told["execution_id"], told["status"]) == (execution_id, "ok")
    assert [each["output_type"] for each in told["outputs"]] == ["stream"] + ["display_data"] * 2
    assert told["outputs"][1]["data"]["image/png"] == PICTURE


async def test_an_output_is_read_by_its_reference_in_the_result(client: Client) -> None:
    result = await client.call_tool("execute_code", {"code": CODE})
    picture, page = result.structured_content["rich"]
    (read,) = (await client.read_resource(picture["uri"])).contents
    assert (read.mime_type, read.blob) == ("image/png", PICTURE)
    assert (picture["type"], picture["bytes"], picture["width"]) == ("image/png", 60, 30)
    (read,) = (await client.read_resource(page["uri"])).contents
    assert read.mime_type == "application/json"
    assert json.loads(read.text)["data"] == {"text/html": "<b>x</b>"}


async def test_both_are_listed_as_templates(client: Client) -> None:
    listed = (await client.list_resource_templates()).resource_templates
    assert [each.uri_template for each in listed][:2] == [
        "execution://{execution_id}",
        "execution://{execution_id}/outputs/{index}",
    ]
    assert (await client.list_resources()).resources == []


@pytest.mark.parametrize("index", ["3", "-1", "x", "9" * 300, "²"])
async def test_an_output_that_is_not_there_is_an_error_of_the_protocol(
    client: Client, index: str
) -> None:
    execution_id = await run(client)
    with pytest.raises(MCPError) as refused:
        await client.read_resource(f"execution://{execution_id}/outputs/{index}")
    assert refused.value.code == INVALID_PARAMS


async def test_a_foreign_execution_and_an_absent_one_get_the_same_answer(front: Front) -> None:
    front.grants.give("a", principal="alice")
    front.grants.give("m", principal="mallory")
    async with front.client("a") as client:
        foreign = await run(client)
    absent = "0" * len(foreign)
    async with front.client("m") as client:
        for more in ("", "/outputs/0", "/outputs/7"):
            told: list[str] = []
            for wanted in (foreign, absent):
                with pytest.raises(MCPError) as refused:
                    await client.read_resource(f"execution://{wanted}{more}")
                told.append(f"{refused.value.code} {refused.value.message}".replace(wanted, "ID"))
            assert told[0] == told[1]


async def test_a_token_without_the_scope_of_the_tool_reads_none(front: Front) -> None:
    front.grants.give("a")
    front.grants.give("f", ["files:read"])
    async with front.client("a") as client:
        execution_id = await run(client)
    async with front.client("f") as client:
        with pytest.raises(MCPError) as refused:
            await client.read_resource(f"execution://{execution_id}")
    assert "execute" in refused.value.message


async def test_a_policy_without_the_tool_lets_none_be_read(
    client: Client, manager: SessionManager, tmp_path: Path
) -> None:
    own = tmp_path / "policies"
    (own / "mute.yaml").write_text(MUTE)
    manager.ownership.policies = load(resources.policies(), own)
    opened = await client.call_tool("open_session", {"policy": "mute"})
    assert opened.structured_content is not None
    execution_id = await run(client, session_id=opened.structured_content["session_id"])
    with pytest.raises(MCPError) as refused:
        await client.read_resource(f"execution://{execution_id}")
    assert "does not allow get_execution" in refused.value.message


async def test_a_reading_is_on_record_and_so_is_one_that_was_refused(
    client: Client, folder: Path
) -> None:
    execution_id = await run(client)
    await client.read_resource(f"execution://{execution_id}")
    told = last_call(folder)
    assert (told["tool"], told["outcome"], told["code"]) == ("get_execution", "ok", "ok")
    assert told["arguments"] == digest_of({"execution_id": execution_id})
    with pytest.raises(MCPError):
        await client.read_resource("execution://absent/outputs/0")
    told = last_call(folder)
    assert (told["outcome"], told["code"]) == ("refused", "not_found")
    assert told["arguments"] == digest_of({"execution_id": "absent", "output": "0"})


async def test_secrets_are_taken_out_of_what_is_read(
    client: Client, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution_id = await run(client)
    monkeypatch.setattr(manager, "redactor", lambda *_: Redactor({"given": "hello-Zq7-pAx"}))
    (read,) = (await client.read_resource(f"execution://{execution_id}")).contents
    assert "[secret given]" in read.text
    assert "hello-Zq7" not in read.text


async def test_a_token_that_does_not_offer_the_tool_reads_none(front: Front) -> None:
    front.grants.give("a")
    async with front.client("a") as client:
        execution_id = await run(client)
    front.grants.known["f"] = replace(front.grants.known["a"], toolsets=("files",))
    async with front.client("f") as client:
        with pytest.raises(MCPError):
            await client.read_resource(f"execution://{execution_id}")


async def test_all_of_an_execution_is_gone_through_off_the_loop(
    client: Client, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: list[threading.Thread] = []

    class Noting(Redactor):
        def data(self, value: Any) -> Any:
            where.append(threading.current_thread())
            return super().data(value)

    execution_id = await run(client)
    monkeypatch.setattr(manager, "redactor", lambda *_: Noting({"given": "hello-Zq7-pAx"}))
    await client.read_resource(f"execution://{execution_id}")
    assert where
    assert threading.main_thread() not in where
