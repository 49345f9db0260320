"""Sharing one notebook of a session with somebody who has no token.

What is given out is a token for that notebook, which counts until its time is over, it is taken
back, or the token of whoever shared it counts no more.
"""

from __future__ import annotations

from urllib.parse import quote, urlencode

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sandbox.audit import TokenEntry
from sandbox.errors import NotFound, NotPermitted, QuotaExceeded
from sandbox.server import arguments as arg
from sandbox.server.desk import grant_of_request
from sandbox.server.grants import LOCAL, SharedNotebook
from sandbox.server.http.operation import EndpointGroup, NoArguments, endpoint
from sandbox.server.http.place import Http
from sandbox.server.jupyter.rooms import READS, WRITES
from sandbox.server.sharing import relative
from sandbox.server.tokens import TokenInfo, TokenStore
from sandbox.values import Frozen

SCOPE = "notebooks"
"""Needed to share a notebook, whatever may be done with it then."""
PATH = "/sessions/{session_id}/notebooks/share"
MAX_SHARES = 64
"""Of one principal at a time."""
MAX_LIFETIME_S = 30 * 24 * 3600


class ShareRequest(Frozen):
    """What is shared, with whom and for how long."""

    path: arg.Path = Field(description="The notebook in the workspace.")
    lifetime_s: float = Field(
        3600, ge=1, le=MAX_LIFETIME_S, description="Seconds for which it is shared."
    )
    edit: bool = Field(False, description="Whether whoever has it may edit, too.")
    name: str = Field(
        "guest",
        pattern=r"^[^\W_](?:[\w .@-]{0,78}[^\W_])?$",
        description="How others in the notebook see who comes.",
    )


class SharedInfo(BaseModel):
    """A notebook that is shared."""

    token_id: str
    path: str
    name: str
    edit: bool
    created_at: float
    expires_at: float | None
    revoked_at: float | None


class NewShare(SharedInfo):
    """The same with what whoever is to have it needs; it is not shown again."""

    token: str
    url: str


class SharedNotebooks(BaseModel):
    """The notebooks of a session that are shared now."""

    shares: list[SharedInfo]


class ShareEndpoints(EndpointGroup):
    """The shared notebooks of a desk's sessions."""

    @endpoint(
        "Share a notebook",
        Http("POST", PATH, status=201),
        scope=SCOPE,
        arguments=ShareRequest,
        result=NewShare,
    )
    async def share_notebook(self, request: Request, wanted: ShareRequest) -> Response:
        """Make a token and an address with which somebody else follows one notebook live, or edits
        it with them; they are good for that notebook and for nothing else."""
        grant, tokens = grant_of_request(request), self._tokens_here()
        session = await self._session(request, *READS, *(WRITES if wanted.edit else ()))
        if len(tokens.shares(grant.principal)) >= MAX_SHARES:
            raise QuotaExceeded(
                f"You share {MAX_SHARES} notebooks, the most there can be.",
                remedy="Take some back.",
            )
        async with session.use():
            notebook = await session.notebooks.open(wanted.path)
        token, info = tokens.create(
            grant.principal,
            [SCOPE if wanted.edit else f"{SCOPE}:read"],
            application=wanted.name,
            policies=grant.policies,
            notebook=SharedNotebook(session.session_id, notebook.path),
            made_with="" if grant.token_id == LOCAL else grant.token_id,
            lifetime_s=wanted.lifetime_s,
        )
        self._record("created", info, grant.principal)
        base = f"{request.url.scheme}://{request.headers['host']}/jupyter/{session.session_id}"
        url = f"{base}/lab/tree/{quote(relative(notebook.path))}?{urlencode({'token': token})}"
        return JSONResponse({**_shown(info), "token": token, "url": url}, 201)

    @endpoint("List shared notebooks", Http("GET", PATH), scope=SCOPE, result=SharedNotebooks)
    async def list_shared_notebooks(self, request: Request, _: NoArguments) -> Response:
        """List the notebooks of a session that are shared now."""
        session = await self._session(request)
        found = self._shares_of(request, session.session_id)
        return JSONResponse({"shares": [_shown(each) for each in found]})

    @endpoint(
        "Take a shared notebook back",
        Http("DELETE", f"{PATH}/{{token_id}}"),
        scope=SCOPE,
        result=SharedInfo,
    )
    async def unshare_notebook(self, request: Request, _: NoArguments) -> Response:
        """Take a shared notebook back: whoever has its token is cut off within seconds."""
        session_id, token_id = (request.path_params[each] for each in ("session_id", "token_id"))
        shares = self._shares_of(request, session_id)
        if token_id not in [each.token_id for each in shares]:
            raise NotFound("There is no such share that counts.", remedy="List them.")
        tokens = self._tokens_here()
        for each in tokens.revoke(token_id=token_id):
            self._record("revoked", each, grant_of_request(request).principal)
        return JSONResponse(_shown(tokens.get(token_id)))

    def _tokens_here(self) -> TokenStore:
        if self._desk.tokens is None:
            raise NotPermitted("This server gives out no tokens.")
        return self._desk.tokens

    def _shares_of(self, request: Request, session_id: str) -> list[TokenInfo]:
        shares = self._tokens_here().shares(grant_of_request(request).principal)
        return [each for each in shares if each.notebook and each.notebook.session_id == session_id]

    def _record(self, event: str, info: TokenInfo, by: str) -> None:
        reason = f"{info.notebook}; {', '.join(info.scopes)}; until {info.expires_at}"
        self._manager.audit.record(
            TokenEntry(
                event=event,
                principal=info.principal,
                token_id=info.token_id,
                by=by,
                reason=reason,
            )
        )


def _shown(info: TokenInfo) -> dict[str, object]:
    return {
        "token_id": info.token_id,
        "path": info.notebook.path if info.notebook else "",
        "name": info.application,
        "edit": SCOPE in info.scopes,
        "created_at": info.created_at,
        "expires_at": info.expires_at,
        "revoked_at": info.revoked_at,
    }
