"""What a Jupyter Server says of itself: its version, its state and who asks."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.responses import PlainTextResponse, Response

from sandbox import __version__
from sandbox.server.jupyter.visits import NOSNIFF, JupyterRoute, Visit, told

API_VERSION = "2.14.0"
"""The version of Jupyter Server whose API this is, which clients look at."""


def routes() -> list[JupyterRoute]:
    """What anybody may ask who may look at the session, or use it at all."""
    return [
        *(JupyterRoute(path, "GET", (), _page) for path in ("", "/", "/tree", "/lab")),
        JupyterRoute("/api", "GET", (), _version),
        JupyterRoute("/api/", "GET", (), _version),
        JupyterRoute("/api/status", "GET", (), _status),
        JupyterRoute("/api/me", "GET", (), _me),
        JupyterRoute("/api/config/{section}", "GET", (), _config),
        JupyterRoute("/api/config/{section}", "PATCH", (), _config),
    ]


def timestamp(seconds: float) -> str:
    """A Unix time as Jupyter clients read it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


async def _page(visit: Visit) -> Response:
    """What a person sees who opens the address in a browser: there is no page of ours to show."""
    text = (
        "This is a sandbox session as a Jupyter Server, for programs such as "
        "jupyter_kernel_client; `sandbox lab` opens it in JupyterLab.\n"
    )
    return PlainTextResponse(text, headers=NOSNIFF)


async def _version(visit: Visit) -> Response:
    return told({"version": API_VERSION, "sandbox_version": __version__})


async def _status(visit: Visit) -> Response:
    info, kernels = visit.session.info(), visit.session.kernels.infos
    latest = max((each.last_activity_at for each in kernels), default=info.created_at)
    return told(
        {
            "started": timestamp(info.created_at),
            "last_activity": timestamp(latest),
            "connections": 0,
            "kernels": len(kernels),
        }
    )


async def _me(visit: Visit) -> Response:
    """Who asks; nobody can be a name or a picture that a client sends."""
    grant = visit.grant
    name = grant.shown_name
    identity = {
        "username": name,
        "name": name,
        "display_name": name,
        "initials": name[:2].upper(),
        "avatar_url": None,
        "color": None,
    }
    permissions = {
        "kernels": ["execute", "read", "write"] if "execute" in grant.scopes else [],
        "terminals": ["execute"] if "terminal" in grant.scopes else [],
        "contents": [
            word
            for word, scope in (("read", "files:read"), ("write", "files:write"))
            if scope in grant.scopes
        ],
    }
    return told({"identity": identity, "permissions": permissions})


async def _config(visit: Visit) -> Response:
    """Nothing is kept of how a client wants to look."""
    return told({})
