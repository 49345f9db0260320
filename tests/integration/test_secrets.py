"""Secrets as callers of a served controller see them: by name."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.served import Served, close_all, sandbox, serve

pytestmark = pytest.mark.anyio

VALUE = "sk-Zq7pA9xwKm3Rt5"
POLICY = """\
version: 1
description: One secret, as a file.
secrets: [{name: given, as: file}]
"""


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("secrets")
    for name in ("policies", "secrets"):
        (folder / name).mkdir(mode=0o700)
    (folder / "policies/keyed.yaml").write_text(POLICY)
    return {
        "SANDBOX_POLICIES": str(folder / "policies"),
        "SANDBOX_SECRETS_DIR": str(folder / "secrets"),
    }


def printed(state: Path, variables: dict[str, str], *words: str, given: str = "") -> str:
    """What a command that must succeed printed."""
    done = sandbox(state, *words, given=given, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, variables: dict[str, str]) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("keyed")
    assert VALUE not in printed(
        folder / "state", variables, "secret", "set", "given", given=f"{VALUE}\n"
    )
    with serve(folder, **variables) as running:
        yield running
        close_all(running)


def test_secrets_are_listed_by_name_and_size(keyed: Served, variables: dict[str, str]) -> None:
    told = printed(keyed.state, variables, "secret", "list", "--json")
    assert json.loads(told) == [
        {"name": "given", "bytes": len(VALUE), "policies": ["keyed"], "problem": ""}
    ]
    shown = printed(keyed.state, variables, "secret", "list")
    assert "given" in shown
    assert VALUE not in shown


async def test_files_that_are_read_edited_or_downloaded_show_no_value(keyed: Served) -> None:
    async with keyed.client(key="files") as client, keyed.http() as http:
        opened = await client.call_tool("open_session", {"policy": "keyed"})
        session = opened.structured_content["session_id"]
        make = (
            "cat /run/secrets/given > text; printf '\\n%s\\n' more >> text; "
            "(printf '\\0\\377a'; cat /run/secrets/given; printf '\\377') > binary; "
            'touch "$(cat /run/secrets/given)"'
        )
        await client.call_tool("run_command", {"command": make, "session_id": session})

        async def call(tool: str, **arguments: object) -> str:
            result = await client.call_tool(tool, {**arguments, "session_id": session})
            return str(result.model_dump_json())

        read = await call("read_file", path="text")
        assert "[secret given]" in read
        binary = await call("read_file", path="binary")
        content = json.loads(binary)["structured_content"]["content"]
        assert base64.b64decode(content) == b"\0\xffa[secret given]\xff"
        edited = await call("edit_file", path="text", old_string="more", new_string="less")
        listed = await call("list_files")
        missing = await call("read_file", path=f"no-{VALUE}")
        for told in (read, binary, edited, listed, missing):
            assert VALUE not in told

        at = f"/mcp/v1/sessions/{session}/files"
        whole = await http.get(f"{at}/text")
        assert whole.content == b"*" * len(VALUE) + b"\nless\n"
        part = await http.get(f"{at}/text", headers={"Range": "bytes=0-5"})
        assert (part.status_code, part.content) == (200, whole.content)
        assert (await http.get(f"{at}/binary")).content == b"\0\xffa" + b"*" * len(VALUE) + b"\xff"
        compared = await call("run_command", command="grep -c -f /run/secrets/given text")
        assert '"stdout":"1\\n"' in compared  # the file itself holds what its code wrote


async def test_a_secret_as_a_name_is_told_by_no_front_and_kept_in_no_record(keyed: Served) -> None:
    async with keyed.client(key="names") as client, keyed.http() as http:
        opened = await client.call_tool("open_session", {"policy": "keyed"})
        session = opened.structured_content["session_id"]
        use = (
            "v=$(cat /run/secrets/given); ln -s /nowhere/$v link; touch a-$v; "
            "curl -s http://$v.example/; curl -s https://$v.example/; "
            "python3 -c \"import urllib.request as u; u.urlopen('https://$v.example')\"; "
            'echo "cat: $v" >&2; ls /absent/$v'
        )
        told: list[str] = []
        for tool, more in (
            ("run_command", {"command": use}),
            ("list_files", {}),
            ("stat_file", {"path": "link"}),
            ("get_session", {}),
            ("read_file", {"path": f"absent-{VALUE}"}),
        ):
            result = await client.call_tool(tool, {**more, "session_id": session})
            told.append(str(result.model_dump_json()))
        at = f"/mcp/v1/sessions/{session}"
        for answer in (
            await http.get(at),
            await http.get("/mcp/v1/sessions"),
            await http.get(f"{at}/files/absent-{VALUE}"),
            await http.put(f"{at}/files/b-{VALUE}", content=b"x"),
            await http.get(f"{at}/files/b-{VALUE}"),
            await http.delete(at),
        ):
            told += [answer.text, str(dict(answer.headers))]
        told.append((await http.get("/mcp/v1/sessions")).text)
    kept = {path: path.read_bytes() for path in keyed.state.rglob("*") if path.is_file()}
    kept[keyed.log] = keyed.log.read_bytes()
    whole = "\n".join(told)
    assert whole.count("[secret given].example") >= 3
    assert VALUE.lower() not in whole.lower()
    assert any(b"[secret given].example" in data for data in kept.values())
    assert not [path for path, data in kept.items() if VALUE.lower().encode() in data.lower()]
