"""What a token for one shared notebook reaches, and that it is a handful of addresses."""

from __future__ import annotations

import pytest

from sandbox.server.grants import SharedNotebook
from sandbox.server.sharing import reaches

NOTEBOOK = SharedNotebook("s1", "/workspace/a.ipynb")
BASE = "/jupyter/s1"


@pytest.mark.parametrize(
    ("kind", "method", "path"),
    [
        ("http", "GET", f"{BASE}/api"),
        ("http", "GET", f"{BASE}/api/me"),
        ("http", "PUT", f"{BASE}/api/collaboration/session/a.ipynb"),
        ("websocket", "", f"{BASE}/api/collaboration/room/json:notebook:0a1b"),
    ],
)
def test_it_reaches_the_room_and_what_leads_there(kind: str, method: str, path: str) -> None:
    assert reaches(NOTEBOOK, {"type": kind, "method": method, "path": path})


@pytest.mark.parametrize(
    ("kind", "method", "path"),
    [
        ("http", "POST", "/mcp/v1"),
        ("http", "GET", "/mcp/v1/sessions"),
        ("http", "POST", "/mcp/v1/sessions/s1/notebooks/share"),
        ("http", "GET", BASE),
        ("http", "GET", "/jupyter/s2/api/me"),
        ("http", "GET", "/jupyter/default/api/me"),
        ("http", "GET", "/jupyter/s1x/api/me"),
        ("http", "GET", f"{BASE}/api/status"),
        ("http", "GET", f"{BASE}/api/contents/a.ipynb"),
        ("http", "GET", f"{BASE}/api/kernels"),
        ("http", "POST", f"{BASE}/api/me"),
        ("http", "GET", f"{BASE}/api/collaboration/session/a.ipynb"),
        ("http", "PUT", "/jupyter/s2/api/collaboration/session/a.ipynb"),
        ("websocket", "", f"{BASE}/api/kernels/k/channels"),
        ("websocket", "", f"{BASE}/api/collaboration/room/JupyterLab:globalAwareness"),
        ("websocket", "", f"{BASE}/api/collaboration/room/json:notebook:0a1b\n"),
        ("websocket", "", f"{BASE}/api/collaboration/room/json:notebook:../../kernels"),
        ("websocket", "", "/jupyter/s2/api/collaboration/room/json:notebook:0a1b"),
        ("websocket", "", "/mcp/v1/sessions/s1/terminal"),
    ],
)
def test_it_reaches_nothing_else(kind: str, method: str, path: str) -> None:
    assert not reaches(NOTEBOOK, {"type": kind, "method": method, "path": path})
