"""Sharing one notebook with somebody who has no token: REST below a session.

What is given out is a token for that notebook, which counts until its time is over, it is taken
back, or the token of whoever shared it counts no more.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.audit import TokenEntry
from sandbox.errors import NotFound, QuotaExceeded
from sandbox.server.auth import GUARDED
from sandbox.server.desk import Desk, caller_of_request, grant_of_request, permit_unasked
from sandbox.server.endpoints import Endpoint, Endpoints
from sandbox.server.grants import LOCAL, SharedNotebook
from sandbox.server.jupyter.rooms import READS, WORKSPACE, WRITES
from sandbox.server.jupyter.visits import body
from sandbox.server.tokens import TokenInfo, TokenStore
from sandbox.values import Frozen

SCOPE = "notebooks"
"""Needed to share a notebook, whatever may be done with it then."""
MAX_SHARES = 64
"""Of one principal at a time."""
MAX_LIFETIME_S = 30 * 24 * 3600


class ShareRequest(Frozen, strict=True):
    """The body of ``POST /sessions/ID/notebooks/share``."""

    path: str = Field(min_length=1, max_length=4096)
    lifetime_s: float = Field(3600, ge=1, le=MAX_LIFETIME_S)
    edit: bool = False
    name: str = Field("guest", min_length=1, max_length=80)


class Shares:
    """The shared notebooks of a desk's sessions."""

    def __init__(self, desk: Desk, tokens: TokenStore) -> None:
        self._desk = desk
        self._tokens = tokens

    def routes(self) -> list[Route]:
        """The endpoints, all behind the gate."""
        whole = f"{GUARDED}/sessions/{{session_id}}/notebooks/share"
        audit = self._desk.manager.audit
        paths: dict[str, dict[str, Endpoint]] = {
            whole: {"GET": self._list, "POST": self._share},
            f"{whole}/{{token_id}}": {"DELETE": self._take_back},
        }
        return [
            Route(path, Endpoints(path, methods, audit), methods=list(methods))
            for path, methods in paths.items()
        ]

    async def _share(self, request: Request) -> Response:
        grant = grant_of_request(request)
        grant.require_scope(SCOPE, "sharing a notebook")
        wanted = await body(request, ShareRequest)
        session_id: str = request.path_params["session_id"]
        session = await self._desk.manager.get(caller_of_request(request), session_id)
        for tool in READS + (WRITES if wanted.edit else ()):
            permit_unasked(session.policy, tool)
        if len(self._open_of(grant.principal)) >= MAX_SHARES:
            raise QuotaExceeded(
                f"You share {MAX_SHARES} notebooks, the most there can be.",
                remedy="Take some back.",
            )
        async with session.use():
            notebook = await session.notebooks.open(wanted.path)
        token, info = self._tokens.create(
            grant.principal,
            [SCOPE if wanted.edit else f"{SCOPE}:read"],
            application=wanted.name,
            policies=grant.policies,
            notebook=SharedNotebook(session.session_id, notebook.path),
            made_with="" if grant.token_id == LOCAL else grant.token_id,
            lifetime_s=wanted.lifetime_s,
        )
        self._record("created", info, grant.principal)
        path = notebook.path.removeprefix(f"{WORKSPACE}/")
        base = f"{request.url.scheme}://{request.headers['host']}/jupyter/{session.session_id}"
        url = f"{base}/lab/tree/{quote(path)}?{urlencode({'token': token})}"
        return JSONResponse({**_shown(info), "token": token, "url": url}, 201)

    async def _list(self, request: Request) -> Response:
        grant = grant_of_request(request)
        grant.require_scope(SCOPE, "looking at shared notebooks")
        session_id: str = request.path_params["session_id"]
        session = await self._desk.manager.get(caller_of_request(request), session_id)
        found = self._open_of(grant.principal, session.session_id)
        return JSONResponse({"shares": [_shown(each) for each in found]})

    async def _take_back(self, request: Request) -> Response:
        grant = grant_of_request(request)
        grant.require_scope(SCOPE, "taking a notebook back")
        session_id, token_id = (request.path_params[each] for each in ("session_id", "token_id"))
        shares = self._open_of(grant.principal, session_id)
        info = next((each for each in shares if each.token_id == token_id), None)
        if info is None:
            raise NotFound("There is no such share that counts.", remedy="GET the list of them.")
        for each in self._tokens.revoke(token_id=token_id):
            self._record("revoked", each, grant.principal)
        return JSONResponse(_shown(self._tokens.get(token_id)))

    def _open_of(self, principal: str, session_id: str = "") -> list[TokenInfo]:
        return [
            each
            for each in self._tokens.shares(principal)
            if each.notebook and session_id in ("", each.notebook.session_id)
        ]

    def _record(self, event: str, info: TokenInfo, by: str) -> None:
        reason = f"{info.notebook}; {', '.join(info.scopes)}; until {info.expires_at}"
        self._desk.manager.audit.record(
            TokenEntry(
                event=event,
                principal=info.principal,
                token_id=info.token_id,
                by=by,
                reason=reason,
            )
        )


def _shown(info: TokenInfo) -> dict[str, Any]:
    return {
        "token_id": info.token_id,
        "path": info.notebook.path if info.notebook else "",
        "name": info.application,
        "edit": SCOPE in info.scopes,
        "created_at": info.created_at,
        "expires_at": info.expires_at,
        "revoked_at": info.revoked_at,
    }
