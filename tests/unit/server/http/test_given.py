"""What requests give: arguments by their names, pages, and what is at a path."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from sandbox import resources
from sandbox.policy import load
from sandbox.sessions.manager import SessionManager

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("executions", {"cod": "1"}, "did you mean code?"),
        ("executions?wat=1", {"code": "1"}, "did you mean wait?"),
        ("executions?wait=1&wait=2", {"code": "1"}, "more than once"),
        ("executions?wait=1", {"code": "1", "wait": 2}, "give it once"),
        ("executions?wait=soon", {"code": "1"}, "wait must be a number from 0 to 3600"),
        ("executions", {"code": 1}, "code must be text"),
        ("executions", {}, "code is required"),
        ("executions", {"code": "1", "session_id": "another"}, "there is no such argument"),
        ("executions", {"code": "1", "progress_interval": 1}, "there is no such argument"),
        ("commands", {"command": ""}, "command must be text of 1 to"),
        ("kernels/k-default/restart?x=1", {}, "nothing is taken"),
    ],
)
async def test_a_wrong_argument_is_named_in_plain_words_and_nothing_runs(
    http: httpx.AsyncClient, session: str, path: str, body: dict[str, object], said: str
) -> None:
    answer = await http.post(f"{session}/{path}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert said in answer.json()["detail"]
    assert (await http.get(f"{session}/executions")).json()["executions"] == []


async def test_what_takes_long_answers_where_it_can_be_asked_for(
    http: httpx.AsyncClient, session: str
) -> None:
    begun = await http.post(f"{session}/executions?wait=0", json={"code": "sleep(30)"})
    assert (begun.status_code, begun.json()["status"]) == (202, "running")
    where = begun.headers["location"]
    assert (await http.get(where, params={"wait": 0})).json()["status"] == "running"
    assert (await http.delete(where)).json()["status"] == "interrupted"
    assert (await http.get(where)).json()["status"] == "interrupted"


async def test_a_list_comes_in_pages(http: httpx.AsyncClient, session: str) -> None:
    for number in range(5):
        await http.post(f"{session}/executions", json={"code": f"print({number})"})
    where, found = f"{session}/executions?limit=2", list[str]()
    for _ in range(3):
        page = await http.get(where)
        found += [each["code"] for each in page.json()["executions"]]
        where = page.links.get("next", {}).get("url", "")
    assert (found, where) == ([f"print({n})" for n in (4, 3, 2, 1, 0)], "")
    for wrong in ("limit=0", "limit=1001", "start_index=-1", "limit=x"):
        answer = await http.get(f"{session}/executions?{wrong}")
        assert answer.status_code == 400, wrong


async def test_a_number_means_the_same_however_it_is_written(
    http: httpx.AsyncClient, session: str
) -> None:
    await http.put(f"{session}/notebooks/n.ipynb")
    for wanted in ("0", "0.0", "+0", " 0"):
        asked = {"start_index": wanted}
        for path in ("notebooks/n.ipynb/cells", "executions"):
            answer = await http.get(f"{session}/{path}", params=asked)
            assert answer.status_code == 200, (path, wanted, answer.text)


async def test_an_output_is_found_by_its_number(http: httpx.AsyncClient, session: str) -> None:
    ran = await http.post(f"{session}/executions", json={"code": "print(1)"})
    where = f"{ran.headers['location']}/outputs"
    assert (await http.get(f"{where}/0")).json()["text"] == "1\n"
    for absent in ("1", "-1", "x", "\u0660", "0000000001"):
        assert (await http.get(f"{where}/{absent}")).status_code == 404, absent


async def test_a_slash_at_the_end_means_nothing_and_wrong_methods_are_told_the_right_ones(
    http: httpx.AsyncClient, session: str
) -> None:
    assert (await http.get(f"{session}/")).json()["session_id"] in session
    assert (await http.get("/mcp/v1/sessions/")).status_code == 200
    wrong = await http.patch(session)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "DELETE, GET, HEAD")
    assert (await http.head(session)).content == b""


async def test_what_a_word_in_a_path_allows_is_told_of_it_and_not_of_a_name_in_its_place(
    http: httpx.AsyncClient,
) -> None:
    told = await http.request("OPTIONS", "/mcp/v1/sessions/x/notebooks/n.ipynb/cells/execute")
    assert (told.status_code, told.headers["allow"]) == (405, "POST")


async def test_kernels_and_terminals_live_and_end(http: httpx.AsyncClient, session: str) -> None:
    made = await http.post(f"{session}/kernels", json={"kernel_name": "bash"})
    assert (made.status_code, made.json()["name"]) == (201, "bash")
    kernel = made.headers["location"]
    assert (await http.get(kernel)).json()["kernel_id"] == made.json()["kernel_id"]
    assert (await http.post(f"{kernel}/restart")).status_code == 200
    assert (await http.delete(kernel)).status_code == 200
    assert (await http.get(kernel)).status_code == 404
    opened = await http.post(f"{session}/terminals", json={"rows": 10})
    terminal = opened.headers["location"]
    assert (await http.put(terminal, json={"rows": 12, "cols": 40})).json()["rows"] == 12
    typed = await http.post(f"{terminal}/input?wait=0", json={"text": "x"})
    assert typed.status_code == 200, typed.text
    assert (await http.get(terminal)).json()["terminal_id"] == opened.json()["terminal_id"]
    assert (await http.delete(terminal)).status_code == 200


async def test_what_a_person_must_agree_to_is_refused(
    http: httpx.AsyncClient, manager: SessionManager, tmp_path: Path
) -> None:
    own = tmp_path / "policies"
    (own / "asking.yaml").write_text(
        "version: 1\ndescription: Asks.\nextends: offline\napprove: {tools: [execute_code]}\n"
    )
    manager.ownership.policies = load(resources.policies(), own)
    opened = await http.post("/mcp/v1/sessions", json={"policy": "asking"})
    session = opened.headers["location"]
    answer = await http.post(f"{session}/executions", json={"code": "1"})
    assert (answer.status_code, answer.json()["code"]) == (403, "not_permitted")
    assert "MCP" in answer.json()["remedy"]
    assert (await http.get(f"{session}/executions")).json()["executions"] == []
