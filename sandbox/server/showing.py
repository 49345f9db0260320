"""How the pictures of an answer are shown: as they are, smaller, or in words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from sandbox.server.hosts import Host, Shaping
from sandbox.server.pictures import Picture, Shown, shares
from sandbox.server.scaling import Copy, Scaler
from sandbox.sessions.session import Session

MAX_SHOWN = 20
"""The pictures of one answer; more of them would each be too small to be of use."""

FindSession = Callable[[], Awaitable[Session | None]]


class Showing:
    """Decides how pictures are shown, and has those that are too large made smaller."""

    def __init__(self, shaping: Shaping) -> None:
        self._side = shaping.picture_side
        self._room = shaping.pictures_bytes
        self._scaler = Scaler(shaping.picture_side)

    async def shown(
        self, pictures: Sequence[Picture], host: Host, find_session: FindSession
    ) -> list[Shown]:
        """How each picture is shown to a host.

        Args:
            find_session: Finds the session in whose container they can be made smaller, when that
                is needed; None when it is gone.
        """
        objections = [_objection(picture, host) for picture in pictures]
        wanted = [index for index, why in enumerate(objections) if not why]
        for index in wanted[MAX_SHOWN:]:
            objections[index] = f"not more than {MAX_SHOWN} are"
        del wanted[MAX_SHOWN:]
        rooms = shares([len(pictures[index].data) for index in wanted], self._room)
        found = {
            index: Shown(pictures[index], why_not=why)
            for index, why in enumerate(objections)
            if why
        }
        large: list[tuple[int, int]] = []
        for index, room in zip(wanted, rooms, strict=True):
            picture = pictures[index]
            if len(picture.data) <= room and max(picture.width, picture.height) <= self._side:
                found[index] = Shown(picture, picture.data, picture.mime)
            else:
                large.append((index, room))
        if large:
            asked = [(pictures[index], room) for index, room in large]
            copies = await self._scaler.copies(await find_session(), asked)
            for (index, _), copy in zip(large, copies, strict=True):
                found[index] = _copied(pictures[index], copy)
        return [found[index] for index in range(len(pictures))]


def _objection(picture: Picture, host: Host) -> str:
    """Why a picture is not shown however small it is; empty when it is."""
    if not picture.is_known:
        return "its bytes are no picture"
    return "" if host.pictures else "this client shows its model no pictures"


def _copied(picture: Picture, copy: Copy | str) -> Shown:
    if isinstance(copy, str):
        return Shown(picture, why_not=copy)
    data, (mime, width, height) = copy
    first = "its first frame, " if picture.mime == "image/gif" else ""
    kind = mime.removeprefix("image/").upper()
    return Shown(picture, data, mime, f"shown as {first}{kind}, {width} × {height}")
