"""What a token for one shared notebook reaches, and that it is a handful of addresses."""

from __future__ import annotations

import pytest

from sandbox.server.grants import SharedNotebook
from sandbox.server.sharing import reaches

NOTEBOOK = SharedNotebook("s1", "/workspace/of/a.ipynb")
BASE = "/jupyter/s1"


@pytest.mark.parametrize(
    ("kind", "method", "path"),
    [
        ("http", "GET", f"{BASE}/api"),
        ("http", "GET", f"{BASE}/api/me"),
        ("http", "GET", f"{BASE}/api/kernels"),
        ("http", "GET", f"{BASE}/api/kernelspecs"),
        ("http", "GET", f"{BASE}/api/sessions"),
        ("http", "GET", f"{BASE}/api/contents"),
        ("http", "GET", f"{BASE}/api/contents/"),
        ("http", "GET", f"{BASE}/api/contents/of"),
        ("http", "GET", f"{BASE}/api/contents/of/a.ipynb"),
        ("http", "GET", f"{BASE}/api/contents/of/a.ipynb/checkpoints"),
        ("http", "PUT", f"{BASE}/api/collaboration/session/of/a.ipynb"),
        ("websocket", "", f"{BASE}/api/collaboration/room/json:notebook:0a1b"),
    ],
)
def test_it_reaches_the_room_and_what_jupyterlab_asks_for_before(
    kind: str, method: str, path: str
) -> None:
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
        ("http", "GET", f"{BASE}/api/contents/of/b.ipynb"),
        ("http", "GET", f"{BASE}/api/contents/of/a.ipynb/b"),
        ("http", "GET", f"{BASE}/api/contents/o"),
        ("http", "GET", f"{BASE}/api/contents/of/"),
        ("http", "GET", f"{BASE}/api/contents/of/../b.ipynb"),
        ("http", "GET", f"{BASE}/api/contents/of/a.ipynb\n"),
        ("http", "GET", f"{BASE}/api/contents//"),
        ("http", "GET", f"{BASE}/api/contentsx"),
        ("http", "GET", f"{BASE}/api/contents/of/checkpoints"),
        ("http", "GET", f"{BASE}/api/contents/of/a.ipynb/checkpoints/checkpoint"),
        ("http", "PUT", f"{BASE}/api/contents/of/a.ipynb"),
        ("http", "PATCH", f"{BASE}/api/contents/of/a.ipynb"),
        ("http", "DELETE", f"{BASE}/api/contents/of/a.ipynb"),
        ("http", "POST", f"{BASE}/api/contents"),
        ("http", "POST", f"{BASE}/api/contents/of/a.ipynb/checkpoints"),
        ("http", "GET", f"{BASE}/files/of/a.ipynb"),
        ("http", "GET", f"{BASE}/api/terminals"),
        ("http", "GET", f"{BASE}/api/kernels/k"),
        ("http", "GET", f"{BASE}/api/kernelspecs/python3"),
        ("http", "GET", f"{BASE}/api/sessions/x"),
        ("http", "POST", f"{BASE}/api/kernels"),
        ("http", "POST", f"{BASE}/api/sessions"),
        ("http", "GET", "/jupyter/s2/api/contents/of/a.ipynb"),
        ("http", "GET", "/jupyter/s2/api/kernels"),
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
