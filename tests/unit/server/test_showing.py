"""How pictures are shown: as they are, smaller, or in words; and never what came as no picture."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast

import anyio
import pytest

from sandbox.errors import LinkLost
from sandbox.server import scaling
from sandbox.server.hosts import PROFILES, UNKNOWN, Host, Shaping
from sandbox.server.pictures import Shown, pictures_of, shares
from sandbox.server.showing import MAX_SHOWN, Showing
from sandbox.sessions.session import Session

from ...support.results import display, png

pytestmark = pytest.mark.anyio

BLIND = PROFILES["chatgpt"]


def encoded(width: int, height: int, size: int) -> str:
    return base64.b64encode(png(width, height, size)).decode()


class Container:
    """Answers what the program in a container would, a line for each picture."""

    def __init__(
        self, *lines: bytes | Exception, hangs: bool = False, session_id: str = "s-one"
    ) -> None:
        self.commands = self
        self.session_id = session_id
        self.asked = 0
        self._lines = lines
        self._hangs = hangs

    async def lines_of(self, argv: Sequence[str], given: bytes, **_: Any) -> AsyncGenerator[bytes]:
        self.asked += 1
        for line in self._lines:
            if isinstance(line, Exception):
                raise line
            yield line
        if self._hangs:
            await anyio.sleep_forever()


async def shown(
    *pictures: str,
    container: Container | None = None,
    host: Host = UNKNOWN,
    showing: Showing | None = None,
) -> list[Shown]:
    async def find() -> Session | None:
        return cast("Session | None", container)

    found = pictures_of([display(image_png=each) for each in pictures])
    return await (showing or Showing(Shaping())).shown(found, host, find)


@pytest.mark.parametrize(
    ("sizes", "room", "found"),
    [
        ([], 10, []),
        ([5], 10, [10]),
        ([9, 9], 10, [5, 5]),
        ([1, 9, 9], 11, [3, 5, 5]),
        ([9, 1, 2], 12, [9, 4, 5]),
    ],
)
def test_a_room_is_shared_fairly(sizes: list[int], room: int, found: list[int]) -> None:
    assert shares(sizes, room) == found
    assert sum(map(min, sizes, found)) <= room


async def test_what_fits_is_shown_as_it_is_and_no_container_is_asked() -> None:
    container = Container()
    small = encoded(640, 480, 2000)
    found = await shown(small, small, container=container)
    assert [(each.data, each.how, each.why_not) for each in found] == [(small, "", "")] * 2
    assert not container.asked


@pytest.mark.parametrize("original", [encoded(4000, 300, 2000), encoded(640, 480, 900_000)])
async def test_what_is_too_wide_or_too_large_is_shown_smaller(original: str) -> None:
    copy = encoded(1200, 90, 500)
    (each,) = await shown(original, container=Container(copy.encode()))
    assert (each.data, each.mime, each.how) == (copy, "image/png", "shown as PNG, 1200 × 90")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"!!!",
        base64.b64encode(b"no picture"),
        encoded(1201, 10, 500).encode(),
        encoded(100, 100, 600_000).encode(),
        base64.b64encode(b"GIF89a\x01\x00\x01\x00" + bytes(30)),
        encoded(100, 100, 500).encode()[:-1],
        LinkLost("it is gone"),
    ],
)
async def test_what_is_no_picture_within_the_limits_is_not_shown(line: bytes | Exception) -> None:
    (each,) = await shown(encoded(4000, 300, 2000), container=Container(line))
    assert (each.data, each.why_not) == ("", scaling.FAILED)


async def test_a_program_that_takes_too_long_costs_the_answer_no_more_than_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scaling, "SCALING_S", 0.2)
    copy = encoded(1200, 90, 500)
    wide = [encoded(4000, 300, size) for size in (2000, 3000)]
    with anyio.fail_after(5):
        found = await shown(*wide, container=Container(copy.encode(), hangs=True))
    assert [(each.data, each.why_not) for each in found] == [(copy, ""), ("", scaling.TOO_SLOW)]


async def test_more_lines_than_pictures_are_not_listened_to() -> None:
    copy = encoded(1200, 90, 500).encode()
    assert len(await shown(encoded(4000, 300, 2000), container=Container(copy, copy, copy))) == 1


async def test_without_a_container_the_reader_is_told_why() -> None:
    (each,) = await shown(encoded(4000, 300, 2000))
    assert each.why_not == scaling.GONE


async def test_a_picture_of_very_many_pixels_is_not_even_tried() -> None:
    container = Container()
    (each,) = await shown(encoded(60_000, 60_000, 2000), container=container)
    assert each.why_not == "it has 3600 million pixels"
    assert not container.asked


async def test_a_copy_is_made_once() -> None:
    container, showing = Container(encoded(1200, 90, 500).encode()), Showing(Shaping())
    wide = encoded(4000, 300, 2000)
    first = await shown(wide, container=container, showing=showing)
    assert await shown(wide, container=container, showing=showing) == first
    assert container.asked == 1


async def test_a_copy_is_shown_to_its_own_session_only() -> None:
    """Whoever runs in a container may answer any picture; that is nobody else's."""
    showing, wide = Showing(Shaping()), encoded(4000, 300, 2000)
    forged, honest = encoded(1200, 90, 500), encoded(1200, 90, 700)
    hostile, other = Container(forged.encode()), Container(honest.encode(), session_id="s-two")
    await shown(wide, container=hostile, showing=showing)
    (each,) = await shown(wide, container=other, showing=showing)
    assert (each.data, other.asked) == (honest, 1)


async def test_copies_are_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "KEPT_BYTES", 1000)
    container, showing = Container(encoded(1200, 90, 500).encode()), Showing(Shaping())
    for size in (2000, 3000, 2000):
        await shown(encoded(4000, 300, size), container=container, showing=showing)
    assert container.asked == 3


async def test_a_host_whose_model_sees_no_pictures_is_told_of_them() -> None:
    (each,) = await shown(encoded(10, 10, 100), host=BLIND)
    assert each.why_not == "this client shows its model no pictures"


async def test_no_more_pictures_are_shown_than_can_be_of_use() -> None:
    found = await shown(*[encoded(10, 10, 100)] * (MAX_SHOWN + 2))
    assert [bool(each.data) for each in found] == [True] * MAX_SHOWN + [False] * 2
    assert found[-1].why_not == f"not more than {MAX_SHOWN} are"


async def test_more_than_may_be_given_is_not_even_put_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dumps(value: object) -> str:
        raise AssertionError("it was put together")

    monkeypatch.setattr(scaling, "MAX_GIVEN_BYTES", 1_000)
    monkeypatch.setattr(json, "dumps", dumps)
    container = Container()
    (each,) = await shown(encoded(5000, 10, 3_000), container=container)
    assert (each.why_not, container.asked) == (scaling.FAILED, 0)
