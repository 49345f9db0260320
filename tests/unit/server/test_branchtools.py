"""The tools that copy kernels, over MCP and over HTTP."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from mcp import Client

from sandbox.server.tool import ERROR_META_KEY

from .conftest import words
from .test_recording import folder, last_call  # noqa: F401  # a fixture

pytestmark = pytest.mark.anyio


async def test_three_branches_are_tried_and_the_best_is_kept(client: Client) -> None:
    await client.call_tool("execute_code", {"code": "x = 1"})
    made = [(await client.call_tool("branch_kernel", {})).structured_content for _ in range(3)]
    ids = [each["kernel_id"] for each in made]
    for number, kernel_id in enumerate(ids):
        code = f"x = x + {number * 10}\nx"
        ran = await client.call_tool("execute_code", {"code": code, "kernel_id": kernel_id})
        assert ran.structured_content["text"] == str(1 + number * 10)
    for kernel_id in ids[:2]:
        await client.call_tool("stop_kernel", {"kernel_id": kernel_id})
    listed = await client.call_tool("list_kernels", {})

    assert made[0]["branch_of"] == "k-default"
    assert made[0]["execution_count"] == 1
    assert f"kernel_id={ids[0]!r}" in made[0]["next"]
    assert f"{ids[2]} (python3), branch of k-default: idle" in words(listed)
    assert ids[0] not in words(listed)


async def test_a_checkpoint_is_made_listed_gone_back_to_and_dropped(client: Client) -> None:
    await client.call_tool("execute_code", {"code": "x = 1"})
    made = await client.call_tool("checkpoint_kernel", {"name": "a", "files": True})
    await client.call_tool("execute_code", {"code": "x = 2"})
    listed = await client.call_tool("list_checkpoints", {})
    back = await client.call_tool("rollback_kernel", {"name": "a"})
    value = await client.call_tool("execute_code", {"code": "x"})
    gone = await client.call_tool("drop_checkpoint", {"name": "a"})
    after = await client.call_tool("list_checkpoints", {})

    assert made.structured_content["memory_bytes"] > 0
    assert made.structured_content["files"] is True
    assert "1.0 MiB" in words(made)
    assert [each["name"] for each in listed.structured_content["checkpoints"]] == ["a"]
    assert "a: 0 s old" in words(listed)
    assert "workspace files are as they were" in words(back)
    assert back.structured_content["execution_count"] == 1
    assert value.structured_content["text"] == "1"
    assert "is gone" in words(gone)
    assert after.structured_content["checkpoints"] == []


async def test_a_reader_of_either_form_is_told_all(client: Client) -> None:
    await client.call_tool("execute_code", {"code": "x = 1"})
    for tool, given in (("branch_kernel", {}), ("checkpoint_kernel", {"name": "a"})):
        told = await client.call_tool(tool, given)
        assert told.structured_content["done"] in words(told)
        assert told.structured_content["next"] in words(told)


async def test_what_was_ended_by_a_rollback_is_named_and_says_so(client: Client) -> None:
    await client.call_tool("execute_code", {"code": "x = 1"})
    await client.call_tool("checkpoint_kernel", {"name": "a"})
    running = await client.call_tool("execute_code", {"code": "sleep(60)", "wait": 0})
    execution_id = running.structured_content["execution_id"]
    back = await client.call_tool("rollback_kernel", {"name": "a"})
    ended = await client.call_tool("get_execution", {"execution_id": execution_id})

    assert back.structured_content["ended"] == [execution_id]
    assert "1 cell" in words(back)
    told = ended.structured_content
    assert (told["status"], told["state"]) == ("interrupted", "rolled_back")
    assert "those of the checkpoint" in told["next"]


async def test_with_a_checkpoint_before_each_cell_a_failed_one_says_how_to_go_back(
    client: Client,
) -> None:
    opened = await client.call_tool("open_session", {"checkpoint": "auto"})
    await client.call_tool("execute_code", {"code": "x = 1"})
    failed = await client.call_tool("execute_code", {"code": "x = 2\nraise ValueError('no')"})
    fine = await client.call_tool("execute_code", {"code": "x"})
    listed = await client.call_tool("list_checkpoints", {})

    assert opened.structured_content["checkpoint"] == "auto"
    assert "rollback_kernel(name='auto-2'" in failed.structured_content["next"]
    assert "next" not in fine.structured_content
    assert listed.structured_content["checkpoint"] == "auto"
    assert "before each cell" in words(listed)


async def test_a_cell_without_its_checkpoint_says_why(client: Client) -> None:
    await client.call_tool("open_session", {"checkpoint": "auto"})
    await client.call_tool("execute_code", {"code": "block(\"the thread 'loader'\")"})
    ran = await client.call_tool("execute_code", {"code": "1 + 1"})
    assert ran.structured_content["status"] == "ok"
    assert "the thread 'loader'" in ran.structured_content["reason"]


async def test_what_cannot_be_copied_is_a_failed_call_that_names_it(client: Client) -> None:
    await client.call_tool("execute_code", {"code": "block(\"the thread 'loader'\")"})
    for tool, given in (("branch_kernel", {}), ("checkpoint_kernel", {"name": "a"})):
        refused = await client.call_tool(tool, given)
        assert refused.is_error
        assert refused.meta[ERROR_META_KEY]["code"] == "conflict"
        assert "the thread 'loader'" in words(refused)


@pytest.mark.parametrize("name", ["auto-3", "../x", "a b"])
async def test_a_name_that_cannot_be_one_is_refused(client: Client, name: str) -> None:
    await client.call_tool("execute_code", {"code": "x = 1"})
    refused = await client.call_tool("checkpoint_kernel", {"name": name})
    assert refused.meta[ERROR_META_KEY]["code"] == "invalid_request"


async def test_a_policy_that_lists_tools_has_none_of_them_unasked(client: Client) -> None:
    opened = await client.call_tool("open_session", {"policy": "strict"})
    session_id = opened.structured_content["session_id"]
    for tool, given in (
        ("branch_kernel", {}),
        ("checkpoint_kernel", {"name": "a"}),
        ("rollback_kernel", {"name": "a"}),
        ("list_checkpoints", {}),
        ("drop_checkpoint", {"name": "a"}),
    ):
        refused = await client.call_tool(tool, {**given, "session_id": session_id})
        assert refused.meta[ERROR_META_KEY]["code"] == "not_permitted", tool


async def test_each_call_is_on_record(client: Client, folder: Path) -> None:  # noqa: F811
    await client.call_tool("execute_code", {"code": "x = 1"})
    for tool, given, outcome in (
        ("branch_kernel", {}, "ok"),
        ("checkpoint_kernel", {"name": "a"}, "ok"),
        ("list_checkpoints", {}, "ok"),
        ("rollback_kernel", {"name": "a"}, "ok"),
        ("drop_checkpoint", {"name": "a"}, "ok"),
        ("rollback_kernel", {"name": "a"}, "refused"),
    ):
        await client.call_tool(tool, given)
        told = last_call(folder)
        assert (told["tool"], told["outcome"]) == (tool, outcome)


async def test_they_have_places_over_http(http: httpx.AsyncClient) -> None:
    opened = (await http.post("/mcp/v1/sessions", json={})).json()
    session = f"/mcp/v1/sessions/{opened['session_id']}"
    await http.post(f"{session}/executions", json={"code": "x = 1"}, params={"wait": 10})
    kernel = f"{session}/kernels/k-default"
    branch = await http.post(f"{kernel}/branches", json={"reseed": False})
    made = await http.post(f"{kernel}/checkpoints", json={"name": "a"})
    listed = await http.get(f"{kernel}/checkpoints")
    back = await http.post(f"{kernel}/checkpoints/a/rollback", json={})
    absent = await http.post(f"{kernel}/checkpoints/b/rollback", json={})
    gone = await http.delete(f"{kernel}/checkpoints/a")

    assert (branch.status_code, made.status_code, back.status_code) == (201, 201, 200)
    assert branch.headers["location"] == f"{session}/kernels/{branch.json()['kernel_id']}"
    assert (await http.get(branch.headers["location"])).json()["branch_of"] == "k-default"
    assert [each["name"] for each in listed.json()["checkpoints"]] == ["a"]
    assert absent.status_code == 404
    assert gone.status_code == 200
