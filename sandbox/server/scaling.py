"""Smaller copies of pictures, made inside the session's container.

A picture comes from hostile code, and decoders have had holes: the controller never decodes one. A
short program does, with the container's Python and Pillow, under the container's own limits and
first to go when its memory runs out. What it answers is as hostile as the picture was: it is shown
only if its header says that it is a PNG or JPEG within the limits. A picture that cannot be scaled
costs its cell nothing; its reader is told why.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import aclosing

import anyio
import anyio.to_thread

from sandbox.errors import SandboxError
from sandbox.server.pictures import Header, Picture, header
from sandbox.sessions.session import Session

SCALING_S = 3.0
"""For all pictures of an answer together."""
MAX_GIVEN_BYTES = 12 * 1024 * 1024
"""Of the pictures that are given to one run, as base64."""
MAX_PIXELS = 24_000_000
"""Of a picture; each takes four bytes of the container's memory."""
KEPT_BYTES = 8 * 1024 * 1024
"""Of copies that are kept for whoever asks again."""
LINE_COST = 256
SCALED = ("image/png", "image/jpeg")
TOO_SLOW = "making it smaller took too long"
GONE = "its container is gone, which could have made it smaller"
FAILED = "its container could not make it smaller"

# A PNG keeps lines and letters sharp, with fewer colours if need be; what would not fit as one (it
# grows about as the area does) becomes a JPEG, and only then smaller still.
PROGRAM = """\
import base64, io, json, sys
try:
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
except OSError:
    pass
from PIL import Image
Image.MAX_IMAGE_PIXELS = 24_000_000

def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return base64.b64encode(file.getvalue()).decode()

def copies(image, expected, room):
    if expected < 2 * room:
        yield encoded(image, "PNG")
    if expected < 4 * room:
        yield encoded(image.quantize(128, Image.Quantize.FASTOCTREE), "PNG")
    flat = image
    if image.mode == "RGBA":
        flat = Image.new("RGB", image.size, "white")
        flat.paste(image, mask=image)
    for quality in (85, 70, 50):
        yield encoded(flat, "JPEG", quality=quality)

def scaled(data, side, room):
    image = Image.open(io.BytesIO(data))
    area = image.width * image.height
    density = float("inf") if image.format == "JPEG" else len(data) * 4 / 3 / area
    image.draft("RGB", (side, side))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
    else:
        image = image.convert("RGB")
    while side >= 32:
        image.thumbnail((side, side), reducing_gap=2.0)
        for copy in copies(image, density * image.width * image.height, room):
            if len(copy) <= room:
                return copy
        side = max(image.size) * 3 // 4
    return ""

job = json.load(sys.stdin)
for each in job["pictures"]:
    try:
        copy = scaled(base64.b64decode(each["data"]), job["side"], each["room"])
    except Exception:
        copy = ""
    print(copy, flush=True)
"""
COMMAND = ("/usr/bin/python3", "-I", "-c", PROGRAM)

Copy = tuple[str, Header]
"""The bytes of a smaller copy as base64, and what their header says."""


class Scaler:
    """Makes smaller copies, and keeps the latest of them."""

    def __init__(self, side: int) -> None:
        self._side = side
        self._kept: OrderedDict[tuple[str, int, int], Copy] = OrderedDict()
        """By session, since each container vouches only for its own, picture and room."""
        self._size = 0

    async def copies(
        self, session: Session | None, pictures: Sequence[tuple[Picture, int]]
    ) -> list[Copy | str]:
        """A smaller copy of each picture, or why there is none.

        Args:
            session: In whose container they are made; None when that is gone.
            pictures: Each with the characters of base64 that its copy may have.
        """
        if session is None:
            return [GONE] * len(pictures)
        keys = [(session.session_id, hash(picture.data), room) for picture, room in pictures]
        found: list[Copy | str] = [
            self._kept.get(key) or _objection(picture)
            for key, (picture, _) in zip(keys, pictures, strict=True)
        ]
        missing = [index for index, copy in enumerate(found) if copy == ""]
        if missing:
            made = await self._make(session, [pictures[index] for index in missing])
            for index, copy in zip(missing, made, strict=True):
                found[index] = copy
                if isinstance(copy, tuple):
                    self._keep(keys[index], copy)
        return found

    async def _make(
        self, session: Session, pictures: Sequence[tuple[Picture, int]]
    ) -> list[Copy | str]:
        if sum(len(picture.data) for picture, _ in pictures) > MAX_GIVEN_BYTES:
            return [FAILED] * len(pictures)
        given = await anyio.to_thread.run_sync(_given, self._side, pictures)
        limit = sum(room + LINE_COST for _, room in pictures)
        made: list[Copy | str] = []
        with anyio.move_on_after(SCALING_S) as scope:
            try:
                lines = session.commands.lines_of(
                    COMMAND, given, timeout_s=SCALING_S, limit_bytes=limit
                )
                async with aclosing(lines):
                    async for line in lines:
                        if len(made) < len(pictures):
                            made.append(self._checked(line, pictures[len(made)][1]))
            except SandboxError:
                pass  # what it has answered is as good as before
        why = TOO_SLOW if scope.cancelled_caught else FAILED
        return [*made, *[why] * (len(pictures) - len(made))]

    def _checked(self, line: bytes, room: int) -> Copy | str:
        """What came, if it is a picture of ours within the limits."""
        try:
            data = binascii.a2b_base64(line, strict_mode=True)
        except ValueError:
            return FAILED
        found = header(data)
        if found is None or found.mime not in SCALED or len(line) > room:
            return FAILED
        if max(found.width, found.height) > self._side:
            return FAILED
        return base64.b64encode(data).decode(), found

    def _keep(self, key: tuple[str, int, int], copy: Copy) -> None:
        if key in self._kept:
            return
        self._kept[key] = copy
        self._size += len(copy[0])
        while self._size > KEPT_BYTES:
            _, (data, _) = self._kept.popitem(last=False)
            self._size -= len(data)


def _given(side: int, pictures: Sequence[tuple[Picture, int]]) -> bytes:
    """What the program reads."""
    job = [{"data": picture.data, "room": room} for picture, room in pictures]
    return json.dumps({"side": side, "pictures": job}).encode()


def _objection(picture: Picture) -> str:
    """Why a picture is not even tried; empty when it is."""
    pixels = picture.width * picture.height
    return f"it has {pixels / 1e6:.0f} million pixels" if pixels > MAX_PIXELS else ""
