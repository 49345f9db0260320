"""What a token for one shared notebook reaches: a handful of addresses, whatever its scopes are.

The gate turns all else away, before anything looks for a session. Which notebook it is, the rooms
look at too (``sandbox.server.jupyter.rooms``).
"""

from __future__ import annotations

import re

from starlette.types import Scope

from sandbox.server.credentials import JUPYTER
from sandbox.server.grants import SharedNotebook

_ABOUT = ("/api", "/api/me")
"""What a Jupyter Server says of itself and of who asks."""
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
        return below in _ABOUT
    return scope["method"] == "PUT" and below.startswith(_SESSION)
