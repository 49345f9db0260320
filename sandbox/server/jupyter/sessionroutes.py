"""Sessions in the sense of a Jupyter Server: which notebook, console or file uses which kernel.

They are the clients' own notes, kept in memory for as long as the sandbox's session. A notebook
that is open as a live document is listed with its kernel, whoever has opened it, so that a client
which opens the same one uses the same kernel.
"""

from __future__ import annotations

import posixpath
import uuid
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from pydantic import Field
from starlette.responses import Response

from sandbox.errors import InvalidRequest, NotFound
from sandbox.kernels.kernels import DEFAULT_KERNEL_NAME
from sandbox.server.jupyter.kernelroutes import kernel_model, kernel_of
from sandbox.server.jupyter.visits import (
    JupyterRoute,
    Visit,
    Wanted,
    body,
    done,
    none_of_them,
    told,
)
from sandbox.server.sharing import absolute, relative
from sandbox.sessions.session import Session

MAX_NOTED = 128
"""Of one sandbox session; the oldest goes first."""


class KernelNamed(Wanted):
    """Which kernel a session is to use."""

    id: str | None = Field(default=None, max_length=100)
    name: str | None = Field(default=None, max_length=200)


class SessionWanted(Wanted):
    """The body of ``POST`` and ``PATCH``."""

    path: str | None = Field(default=None, max_length=4096)
    name: str | None = Field(default=None, max_length=4096)
    type: str | None = Field(default=None, max_length=100)
    kernel: KernelNamed | None = None


@dataclass(frozen=True, slots=True)
class _Noted:
    """One of them."""

    session_id: str
    path: str
    name: str
    type: str
    kernel_id: str


class JupyterSessions:
    """Those of all sandbox sessions."""

    def __init__(self) -> None:
        self._noted: WeakKeyDictionary[Session, OrderedDict[str, _Noted]] = WeakKeyDictionary()

    def routes(self) -> list[JupyterRoute]:
        """To list, make, change and delete them."""
        one = "/api/sessions/{noted_id}"
        return [
            JupyterRoute(
                "/api/sessions", "GET", ("list_kernels",), self._list, for_guest=none_of_them
            ),
            JupyterRoute("/api/sessions", "POST", ("list_kernels",), self._make),
            JupyterRoute(one, "GET", ("list_kernels",), self._show),
            JupyterRoute(one, "PATCH", ("list_kernels",), self._change),
            JupyterRoute(one, "DELETE", ("stop_kernel",), self._delete),
        ]

    async def _list(self, visit: Visit) -> Response:
        return told([_model(visit.session, each) for each in self._all(visit.session)])

    async def _make(self, visit: Visit) -> Response:
        wanted = await body(visit.request, SessionWanted)
        if not wanted.path or not wanted.type:
            raise InvalidRequest("A session has a path and a type.")
        found = next((each for each in self._all(visit.session) if each.path == wanted.path), None)
        if found is None:
            kernel_id = await self._kernel(visit, wanted.path, wanted.kernel)
            name = wanted.name or ""
            found = _Noted(str(uuid.uuid4()), wanted.path, name, wanted.type, kernel_id)
            self._note(visit.session, found)
        location = f"{visit.base}/api/sessions/{found.session_id}"
        return told(_model(visit.session, found), 201, {"Location": location})

    async def _show(self, visit: Visit) -> Response:
        return told(_model(visit.session, self._find(visit)))

    async def _change(self, visit: Visit) -> Response:
        found = self._find(visit)
        wanted = await body(visit.request, SessionWanted)
        path = found.path if wanted.path is None else wanted.path
        changed = replace(
            found,
            path=path,
            name=found.name if wanted.name is None else wanted.name,
            type=wanted.type or found.type,
        )
        if wanted.kernel is not None and (wanted.kernel.id or wanted.kernel.name):
            # The one before may be somebody else's too, the agent's most of all: it goes on.
            kernel_id = await self._kernel(visit, path, wanted.kernel, is_new=True)
            changed = replace(changed, kernel_id=kernel_id)
        self._note(visit.session, changed)
        return told(_model(visit.session, changed))

    async def _delete(self, visit: Visit) -> Response:
        """Forget it, and stop its kernel where no other session uses that."""
        found, session = self._find(visit), visit.session
        self._noted.get(session, OrderedDict()).pop(found.session_id, None)
        if all(each.kernel_id != found.kernel_id for each in self._all(session)):
            await session.kernels.stop(found.kernel_id)
        return done()

    async def _kernel(
        self, visit: Visit, path: str, wanted: KernelNamed | None, *, is_new: bool = False
    ) -> str:
        """The kernel that is meant: that of its id, the live notebook's, or a new one."""
        session = visit.session
        if wanted is not None and wanted.id:
            return kernel_of(session, wanted.id).kernel_id
        if not is_new:
            for live in session.notebooks.opened:
                if live.path == absolute(path) and live.kernel_id:
                    return live.kernel_id
        visit.permit("start_kernel")
        name = (wanted and wanted.name) or DEFAULT_KERNEL_NAME
        return (await session.kernels.start(name)).kernel_id

    def _all(self, session: Session) -> list[_Noted]:
        """Those whose kernel is there, and the live notebooks that are none of them."""
        kernels = {each.kernel_id for each in session.kernels.infos}
        noted = self._noted.get(session, OrderedDict())
        for gone in [key for key, each in noted.items() if each.kernel_id not in kernels]:
            del noted[gone]
        found = list(noted.values())
        paths = {absolute(each.path) for each in found}
        for live in session.notebooks.opened:
            if live.kernel_id in kernels and live.path not in paths:
                path = relative(live.path)
                name = posixpath.basename(path)
                found.append(_Noted(live.file_id, path, name, "notebook", live.kernel_id))
        return found

    def _find(self, visit: Visit) -> _Noted:
        wanted = visit.param("noted_id")
        for each in self._all(visit.session):
            if each.session_id == wanted:
                return each
        raise NotFound(f"There is no session {wanted!r:.80} here.")

    def _note(self, session: Session, noted: _Noted) -> None:
        kept = self._noted.setdefault(session, OrderedDict())
        kept[noted.session_id] = noted
        if len(kept) > MAX_NOTED:
            kept.popitem(last=False)


def _model(session: Session, noted: _Noted) -> dict[str, Any]:
    model: dict[str, Any] = {
        "id": noted.session_id,
        "path": noted.path,
        "name": noted.name,
        "type": noted.type,
        "kernel": kernel_model(kernel_of(session, noted.kernel_id)),
    }
    if noted.type == "notebook":
        model["notebook"] = {"path": noted.path, "name": noted.name}
    return model
