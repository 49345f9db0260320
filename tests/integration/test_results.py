"""What is told of executions and commands in real containers: small, whole, and with pictures."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from mcp import Client

from sandbox.server.pictures import header

from ..support.served import Served

pytestmark = pytest.mark.anyio

ONE_MB = 1_000_000
LARGE = """\
import numpy as np, matplotlib.pyplot as plt
plt.figure(figsize=(8, 6), dpi=150); plt.imshow(np.random.rand(600, 600)); plt.show()"""
WIDE = "plt.figure(figsize=(30, 20)); plt.plot([1, 4, 9]); plt.show()"
TWELVE = """\
for number in range(12):
    plt.figure(); plt.scatter(*np.random.rand(2, 1500), c=np.random.rand(1500)); plt.show()"""
GIFS = """\
import io
from IPython.display import Image as Show, display
from PIL import Image
def gif(side):
    frames = [Image.effect_noise((side, side), 99).convert("P") for _ in range(3)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return Show(file.getvalue(), format="gif")
display(gif(40), gif(700))"""
BOMB = """\
import struct, zlib
def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
head = struct.pack(">IIBBBBB", 4000, 4000, 8, 2, 0, 0, 0)
start = b"\\x89PNG\\r\\n\\x1a\\n"
Show(start + chunk(b"IHDR", head) + chunk(b"IDAT", b"x" * 900_000), format="png")"""
TABLE = "import pandas as pd\npd.DataFrame(np.arange(480).reshape(60, 8))"


@pytest.fixture(scope="module")
async def session_id(served: Served) -> str:
    """A session in which what the cells want is imported."""
    async with served.client() as client:
        opened = await client.call_tool("open_session", {"policy": "datascience"})
        assert opened.structured_content is not None, opened.content
        found: str = opened.structured_content["session_id"]
        await client.call_tool("execute_code", {"code": LARGE, "session_id": found})
    return found


@pytest.fixture
async def client(served: Served, session_id: str) -> AsyncIterator[Client]:
    async with served.client() as client:
        yield client


def images(result: Any) -> list[Any]:
    """The pictures of an answer, each with what its bytes say of it."""
    found = [block for block in result.content if block.type == "image"]
    known = [header(base64.b64decode(block.data)) for block in found]
    assert [block.mime_type for block in found] == [each and each.mime for each in known]
    return known


def links(result: Any) -> list[str]:
    return [block.uri for block in result.content if block.type == "resource_link"]


def words(result: Any) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


def size(result: Any) -> int:
    return len(result.model_dump_json(by_alias=True, exclude_none=True))


async def test_a_large_picture_is_shown_smaller_and_its_original_is_linked_to(
    client: Client, session_id: str
) -> None:
    for code, side in ((LARGE, 1200), (WIDE, 1200)):
        result = await client.call_tool("execute_code", {"code": code, "session_id": session_id})
        (image,) = images(result)
        assert max(image.width, image.height) <= side
        (reference,) = result.structured_content["rich"]
        assert links(result) == [reference["uri"]]
        assert "; shown as " in result.structured_content["text"]
        assert len(json.dumps(result.structured_content)) < 800
        assert size(result) < ONE_MB
        (read,) = (await client.read_resource(reference["uri"])).contents
        original = base64.b64decode(read.blob)
        assert (read.mime_type, len(original)) == ("image/png", reference["bytes"])
        assert header(original)[1:] == (reference["width"], reference["height"])


async def test_twelve_plots_of_one_cell_are_twelve_pictures(
    client: Client, session_id: str
) -> None:
    result = await client.call_tool("execute_code", {"code": TWELVE, "session_id": session_id})
    found = images(result)
    assert len(found) == 12
    assert min(min(image.width, image.height) for image in found) > 150
    assert size(result) < ONE_MB
    again = await client.call_tool(
        "get_execution", {"execution_id": result.structured_content["execution_id"]}
    )
    assert images(again) == found


async def test_a_gif_is_shown_as_it_is_when_it_is_small_and_else_by_its_first_frame(
    client: Client, session_id: str
) -> None:
    result = await client.call_tool("execute_code", {"code": GIFS, "session_id": session_id})
    small, large = images(result)
    assert small[:] == ("image/gif", 40, 40)
    assert large.mime in ("image/png", "image/jpeg")
    assert "shown as its first frame, " in result.structured_content["text"]


async def test_what_cannot_be_made_smaller_costs_its_cell_nothing_and_is_told(
    client: Client, session_id: str
) -> None:
    result = await client.call_tool("execute_code", {"code": BOMB, "session_id": session_id})
    assert result.structured_content["status"] == "ok"
    assert not images(result)
    (told,) = result.structured_content["left_out"]
    assert told.startswith("picture 1 not shown, for its container could not make it smaller: ")
    assert told in words(result)
    assert links(result) == [result.structured_content["rich"][0]["uri"]]
    again = await client.call_tool("execute_code", {"code": "1 + 1", "session_id": session_id})
    assert again.structured_content["text"] == "2"


async def test_when_its_container_is_gone_a_large_picture_is_told_of(client: Client) -> None:
    opened = await client.call_tool("open_session", {"policy": "datascience", "reuse": False})
    here = {"session_id": opened.structured_content["session_id"]}
    ran = await client.call_tool("execute_code", {"code": LARGE, **here})
    await client.call_tool("close_session", here)
    asked = {"execution_id": ran.structured_content["execution_id"]}
    for wanted in ({}, {"detail": "full"}):
        result = await client.call_tool("get_execution", {**asked, **wanted})
        assert size(result) < ONE_MB
    (read,) = (await client.read_resource(result.structured_content["rich"][0]["uri"])).contents
    assert read.mime_type == "image/png"


async def test_a_picture_in_a_file_is_shown_smaller(client: Client, session_id: str) -> None:
    here = {"session_id": session_id}
    code = "plt.figure(figsize=(8, 6)); plt.imshow(np.random.rand(900, 900))"
    await client.call_tool(
        "execute_code", {"code": f"{code}; plt.savefig('a.png', dpi=300)", **here}
    )
    result = await client.call_tool("read_file", {"path": "a.png", **here})
    (image,) = images(result)
    assert (image.width, image.height) == (1200, 900)
    assert "a.png: image/png, 2400 × 1800, " in words(result)
    assert result.structured_content["content"] == ""


async def test_results_are_small(client: Client, session_id: str) -> None:
    for code, most in (("1 + 1", 300), ("print('hello')", 300), (TABLE, 400)):
        result = await client.call_tool("execute_code", {"code": code, "session_id": session_id})
        told = result.structured_content
        text = len(told["text"]) if code == TABLE else 0
        assert len(json.dumps(told, ensure_ascii=False)) <= text + most, told


STUBBORN = """\
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
while True: time.sleep(0.1)"""
HINTS: list[tuple[str, str, dict[str, Any]]] = [
    ("ok", "execute_code", {"code": "1"}),
    ("error", "execute_code", {"code": "1 / 0"}),
    ("timeout, kept", "execute_code", {"code": "import time; time.sleep(60)", "timeout": 0.5}),
    ("input", "execute_code", {"code": "input()"}),
    ("running", "execute_code", {"code": "import time; time.sleep(2)", "wait": 0.1}),
    ("denied", "execute_code", {"code": "!curl -sS -m 5 https://example.com"}),
    ("cut", "execute_code", {"code": "print('x' * 3_000_000)"}),
    ("too large", "execute_code", {"code": f"from IPython.display import Image as Show\n{BOMB}"}),
    ("dropped", "execute_code", {"code": "display({'application/x-odd': 'x'}, raw=True)"}),
    ("fence", "execute_code", {"code": "```python\n1\n```"}),
    ("ignored", "execute_code", {"code": "1", "toolCallId": "7"}),
    ("command", "run_command", {"command": "yes | head -c 300000; exit 3"}),
    ("command, timeout", "run_command", {"command": "sleep 60", "timeout": 0.5}),
    ("command, running", "run_command", {"command": "sleep 2", "wait": 0.1}),
    ("command, ignored", "run_command", {"command": "true", "toolCallId": "7"}),
    ("file", "read_file", {"path": "/etc/passwd", "line_limit": 1, "toolCallId": "7"}),
    ("bytes", "read_file", {"path": "/bin/true"}),
    ("restarted", "execute_code", {"code": STUBBORN, "timeout": 0.5}),
    ("died", "execute_code", {"code": "x = [bytes([1]) * (1 << 28) for _ in range(99)]"}),
]


@pytest.mark.parametrize(("tool", "given"), [pytest.param(*each[1:], id=each[0]) for each in HINTS])
async def test_every_sentence_of_the_content_is_in_the_structured_result(
    client: Client, session_id: str, tool: str, given: dict[str, Any]
) -> None:
    with anyio.fail_after(120):
        result = await client.call_tool(tool, {**given, "session_id": session_id})
    told = result.structured_content
    assert told is not None, words(result)
    everything = "\n".join(
        each if isinstance(each, str) else "\n".join(map(str, each))
        for each in told.values()
        if isinstance(each, str | list)
    )
    for line in words(result).splitlines():
        sentence = line.removeprefix("[").removesuffix("]")
        if " after " in sentence and sentence.split()[0] in (
            *(told.get("status", ""), "exit", "killed", "timed", "stopped"),
        ):
            _, *parts = sentence.split("; ")
            for part in parts:
                assert part == f"variables are {told.get('state')}" or part in everything, part
        elif line != "stderr:":
            assert sentence in everything, line
