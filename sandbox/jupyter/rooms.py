"""The live rooms of jupyter-collaboration, where a Jupyter Server has that: one for each notebook.

A room is let go of when its last client has left. An agent is no client, so what it writes into a
room that is over would be lost: as long as it uses a notebook, a guest of ours stays in the room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from sandbox.collaboration.attached import AttachedDocument
from sandbox.collaboration.authors import Author
from sandbox.errors import FileError, InfrastructureError

COLORS = 7
MAX_NAME = 80


class Guest:
    """Stays in a room, hears all and says nothing."""

    path = "sandbox"

    async def send(self, message: bytes) -> None:
        """The room: tell a client something."""


class Room:
    """The room of one notebook, and the document in it."""

    def __init__(self, room: Any, doc: Any, file_id: str) -> None:
        self.file_id = file_id
        self.document = AttachedDocument(doc)
        self._room = room
        self._guest = Guest()
        self._agents: dict[str, str] = {}
        room.clients.add(self._guest)
        if (cleaner := getattr(room, "cleaner", None)) is not None:
            cleaner.cancel()

    def is_of(self, room: Any) -> bool:
        """Whether it is still this room, and not the one before a restart of it."""
        return self._room is room and self._guest in room.clients

    def leave(self) -> None:
        """Let the room go when its clients do."""
        self._room.clients.discard(self._guest)
        self.document.close()

    @property
    def people(self) -> Sequence[Author]:
        """Who is in it, as they say, and the agents."""
        awareness = self._room.awareness
        said: list[tuple[int, Any]] = list(awareness.states.items())
        users = [(client, _user(state)) for client, state in said if client != awareness.client_id]
        found = [Author(str(client), name, is_agent=False) for client, name in users if name]
        return (*found, *(Author(key, name) for key, name in self._agents.items()))

    def enter(self, author: Author) -> None:
        """Show an agent among those who are in it."""
        if author.is_agent and self._agents.get(author.key) != author.name:
            self._agents[author.key] = author.name
            self._tell()

    def show_no_more(self, author: Author) -> None:
        """Show an agent no more."""
        if self._agents.pop(author.key, None) is not None:
            self._tell()

    async def save(self) -> None:
        """Have the room write its notebook to the file now."""
        if (saving := self._room._save_to_disc()) is not None:  # what its own clients ask for
            await saving

    def _tell(self) -> None:
        name = ", ".join(dict.fromkeys(self._agents.values()))[:MAX_NAME]
        user = {
            "username": "sandbox-agent",
            "name": name,
            "display_name": name,
            "initials": name[:1].upper(),
            "color": f"var(--jp-collaborator-color{len(name) % COLORS + 1})",
        }
        state = {"user": user, "agent": True} if name else None
        self._room.awareness.set_local_state(state)


def _user(state: Any) -> str:
    """The name that a client of a room gives itself; empty when it gives none."""
    found: Mapping[str, Any] = (
        cast("Mapping[str, Any]", state) if isinstance(state, Mapping) else {}
    )
    user = found.get("user")
    name = cast("Mapping[str, Any]", user).get("name") if isinstance(user, Mapping) else None
    return name[:MAX_NAME] if isinstance(name, str) else ""


class Rooms:
    """Finds the rooms; ``extension`` is that of jupyter-collaboration's server."""

    def __init__(self, extension: Any, file_ids: Any) -> None:
        self._extension = extension
        self._file_ids = file_ids
        self._rooms: dict[str, Room] = {}

    async def enter(self, path: str) -> Room:
        """The room of the notebook at a path, which begins with that if there is none.

        Raises:
            FileError: There is no such notebook, or it cannot be read.
        """
        try:
            document = await self._extension.get_document(
                path=path, content_type="notebook", file_format="json", copy=False, create=True
            )
            file_id = str(self._file_ids.get_id(path))
            room = await self._extension.ywebsocket_server.get_room(f"json:notebook:{file_id}")
        except Exception as exc:  # whatever the file or the room fails with
            raise FileError("io_error", f"{path!r:.300} cannot be opened: {exc!s:.300}") from exc
        if document is None:
            raise InfrastructureError(f"There is no room for {path!r:.300}.")
        known = self._rooms.get(path)
        if known is None or not known.is_of(room):
            if known is not None:
                known.leave()
            known = self._rooms[path] = Room(room, document.ydoc, file_id)
        return known

    def leave(self, path: str) -> None:
        """Let a room go; harmless when it was not entered."""
        if (known := self._rooms.pop(path, None)) is not None:
            known.leave()


def rooms_of(server: Any) -> Rooms | None:
    """The rooms of a Jupyter Server; None where its collaboration is not installed or off."""
    found = server.extension_manager.extension_apps.get("jupyter_server_ydoc")
    file_ids = server.web_app.settings.get("file_id_manager")
    for extension in found or ():
        if file_ids is not None and not extension.disable_rtc:
            return Rooms(extension, file_ids)
    return None
