"""All that a session offers as a Jupyter Server, as routes of the application."""

from __future__ import annotations

from itertools import groupby

from starlette.routing import Route

from sandbox.server.credentials import JUPYTER
from sandbox.server.desk import Desk
from sandbox.server.endpoints import Endpoints
from sandbox.server.jupyter import about, checkpointroutes, kernelroutes, terminalroutes
from sandbox.server.jupyter.contentroutes import Contents
from sandbox.server.jupyter.kernelsockets import KernelSockets
from sandbox.server.jupyter.rooms import Rooms
from sandbox.server.jupyter.sessionroutes import JupyterSessions
from sandbox.server.jupyter.visits import JupyterRoute, endpoint, refusal
from sandbox.server.websockets import WebSocketRoute

BASE = f"{JUPYTER}/{{session_id}}"


def jupyter_routes(desk: Desk) -> list[Route]:
    """The REST endpoints of every session, all behind the gate and on record."""
    found: list[JupyterRoute] = [
        *about.routes(),
        *kernelroutes.routes(),
        *JupyterSessions().routes(),
        *terminalroutes.routes(),
        *Rooms(desk).routes(),
        *checkpointroutes.routes(),  # whose paths look like those of files
        *Contents().routes(),
    ]
    return [_served(desk, path, list(each)) for path, each in groupby(found, lambda r: r.path)]


def jupyter_websockets(desk: Desk) -> list[WebSocketRoute]:
    """The WebSockets of every session."""
    return [
        *KernelSockets(desk).routes(),
        *terminalroutes.websockets(desk),
        *Rooms(desk).websockets(),
    ]


def _served(desk: Desk, path: str, routes: list[JupyterRoute]) -> Route:
    methods = {each.method: endpoint(desk, each) for each in routes}
    endpoints = Endpoints(BASE + path, dict(methods), desk.manager.audit, refusal)
    return Route(BASE + path, endpoints, methods=list(methods))
