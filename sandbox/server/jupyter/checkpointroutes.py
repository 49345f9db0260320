"""One checkpoint of each file, kept beside it as Jupyter does: ``.ipynb_checkpoints/``."""

from __future__ import annotations

import posixpath
from typing import Any

from starlette.responses import Response

from sandbox.errors import Conflict, FileError, NotFound
from sandbox.server.jupyter import contentmodels as models
from sandbox.server.jupyter.about import timestamp
from sandbox.server.jupyter.contentroutes import copy
from sandbox.server.jupyter.visits import JupyterRoute, Visit, done, none_of_them, told
from sandbox.server.sharing import absolute
from sandbox.sessions.session import Session

CHECKPOINT = "checkpoint"
"""The id of the only one."""
FOLDER = ".ipynb_checkpoints"


def routes() -> list[JupyterRoute]:
    """To list, make, take back and delete the checkpoint of a file."""
    every = "/api/contents/{path:path}/checkpoints"
    one = f"{every}/{{checkpoint_id}}"
    return [
        JupyterRoute(every, "GET", ("stat_file",), _list, for_guest=none_of_them),
        JupyterRoute(every, "POST", ("read_file", "write_file"), _make),
        JupyterRoute(one, "POST", ("read_file", "write_file"), _restore),
        JupyterRoute(one, "DELETE", ("delete_file",), _delete),
    ]


def _kept_at(path: str) -> str:
    folder, name = posixpath.split(path)
    stem, ext = posixpath.splitext(name)
    return posixpath.join(folder, FOLDER, f"{stem}-{CHECKPOINT}{ext}")


async def _model(session: Session, path: str) -> dict[str, Any]:
    stat = await session.files.stat(absolute(_kept_at(path)))
    return {"id": CHECKPOINT, "last_modified": timestamp(max(stat.mtime, 0.0))}


async def _list(visit: Visit) -> Response:
    try:
        return told([await _model(visit.session, models.checked(visit.param("path")))])
    except FileError as exc:
        if exc.reason != "not_found":
            raise
        return told([])


async def _make(visit: Visit) -> Response:
    path, session = models.checked(visit.param("path")), visit.session
    for live in session.notebooks.opened:
        if live.path == absolute(path):
            await live.save()
    await copy(session, path, _kept_at(path))
    return told(await _model(session, path), 201)


async def _restore(visit: Visit) -> Response:
    path, session = _existing(visit), visit.session
    if any(live.path == absolute(path) for live in session.notebooks.opened):
        raise Conflict(f"{path!r:.200} is open as a live document.", remedy="Close it first.")
    await copy(session, _kept_at(path), path)
    return done()


async def _delete(visit: Visit) -> Response:
    await visit.session.files.delete(absolute(_kept_at(_existing(visit))))
    return done()


def _existing(visit: Visit) -> str:
    if visit.param("checkpoint_id") != CHECKPOINT:
        raise NotFound("There is no such checkpoint.")
    return models.checked(visit.param("path"))
