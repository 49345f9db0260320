"""Attacks by pictures: on whoever decodes them, and on what is shown in their place."""

from __future__ import annotations

import base64

import pytest

from sandbox.server import scaling
from sandbox.server.hosts import UNKNOWN, Shaping
from sandbox.server.pictures import Shown, header, pictures_of
from sandbox.server.showing import Showing
from sandbox.sessions.session import Session

from .conftest import Attacked

pytestmark = pytest.mark.anyio

IMPOSTOR = """
import io, os, shutil
from IPython.display import Image as Show
from PIL import Image
picture = io.BytesIO()
Image.effect_noise((1600, 400), 99).save(picture, "PNG")
folders = os.path.expanduser("~/.local/lib/python3.11/site-packages/PIL"), "/workspace/PIL"
for folder in folders:
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/__init__.py", "w") as file:
        file.write("print('x' * 10_000_000)\\nImage = None\\n")
Show(picture.getvalue(), format="png")
"""
CLEAN = "for folder in folders: shutil.rmtree(folder)"
BOMB = """
import struct, zlib
from IPython.display import Image as Show
def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
rows = zlib.compress(bytes(4801 * 3 * 4800), 9)
head = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))
start = b"\\x89PNG\\r\\n\\x1a\\n"
Show(start + head + chunk(b"IDAT", rows) + chunk(b"IEND", b""), format="png")
"""


async def shown(sandbox: Attacked, code: str) -> list[Shown]:
    """How the pictures of a cell would be shown."""
    result = await sandbox.cell(code)
    assert result.status == "ok", result.error

    async def find() -> Session:
        return sandbox.session

    return await Showing(Shaping()).shown(pictures_of(result.outputs), UNKNOWN, find)


async def test_what_a_session_puts_in_the_place_of_the_decoder_is_not_asked(
    sandbox: Attacked,
) -> None:
    """Invariant 3: the program that makes pictures smaller takes nothing of the session's own."""
    (picture,) = await shown(sandbox, IMPOSTOR)
    await sandbox.cell(CLEAN)
    assert picture.why_not == ""
    found = header(base64.b64decode(picture.data))
    assert found is not None
    assert max(found.width, found.height) == Shaping().picture_side


@pytest.mark.parametrize("side", [4800, 60_000])
async def test_a_picture_that_unpacks_to_very_much_costs_its_own_session_only(
    sandbox: Attacked, side: int
) -> None:
    """Invariant 3: the controller decodes none, and the container's limits hold for who does."""
    (picture,) = await shown(sandbox, BOMB.replace("SIDE", str(side)))
    if side == 4800:
        assert picture.data or picture.why_not in (scaling.FAILED, scaling.TOO_SLOW)
    else:
        assert picture.why_not == "it has 3600 million pixels"
    assert await sandbox.is_alive()
