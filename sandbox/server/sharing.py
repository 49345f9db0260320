"""What a token for one shared notebook reaches: a handful of addresses, whatever its scopes are.

The gate turns all else away, before anything looks for a session. Which notebook it is, the rooms
look at too (``sandbox.server.jupyter.rooms``), and so do the contents: beside the room there is
what JupyterLab asks for before it shows a notebook, with that notebook in it and nothing else.
"""

from __future__ import annotations

import re

from starlette.types import Scope

from sandbox.server.credentials import JUPYTER
from sandbox.server.grants import SharedNotebook
from sandbox.sessions.models import WORKSPACE

_ABOUT = ("/api", "/api/me")
"""What a Jupyter Server says of itself and of who asks."""
_LISTS = ("/api/kernels", "/api/kernelspecs", "/api/sessions")
"""What there is none of for a guest, who is told so."""
_CONTENTS = "/api/contents"
_CHECKPOINTS = "/checkpoints"
_SESSION = "/api/collaboration/session/"
_ROOM = re.compile(r"/api/collaboration/room/json:notebook:[A-Za-z0-9_-]{1,100}")


def reaches(notebook: SharedNotebook, scope: Scope) -> bool:
    """Whether whoever has a token for that notebook may go to an address at all."""
    base = f"{JUPYTER}/{notebook.session_id}"
    path: str = scope["path"]
    if not path.startswith(f"{base}/"):
        return False
    below = path.removeprefix(base)
    if scope["type"] == "websocket":
        return _ROOM.fullmatch(below) is not None
    if scope["method"] in ("GET", "HEAD"):
        return below in _ABOUT or below in _LISTS or _is_of_contents(notebook, below)
    return scope["method"] == "PUT" and below.startswith(_SESSION)


def relative(path: str) -> str:
    """A path in the workspace as the contents API has it."""
    return path.removeprefix(f"{WORKSPACE}/")


def leads_to(notebook: SharedNotebook, path: str) -> bool:
    """Whether a path of the contents API is a notebook's, or that of a folder on the way to it."""
    way = relative(notebook.path)
    return path in ("", way) or way.startswith(f"{path}/")


def _is_of_contents(notebook: SharedNotebook, below: str) -> bool:
    if below in (_CONTENTS, f"{_CONTENTS}/"):
        return True
    prefix, path = f"{_CONTENTS}/", below.removeprefix(f"{_CONTENTS}/")
    if not below.startswith(prefix):
        return False
    return leads_to(notebook, path) or path == f"{relative(notebook.path)}{_CHECKPOINTS}"
