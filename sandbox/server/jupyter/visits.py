"""A request of a Jupyter client: the session it visits, what that needs, how a refusal looks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from sandbox.errors import FileError, InvalidRequest, SandboxError
from sandbox.server.desk import Desk, permit_unasked
from sandbox.server.endpoints import whole_body
from sandbox.server.grants import Grant, InsufficientScope
from sandbox.server.problems import status_of
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session

DEFAULT = "default"
"""In the place of a session's id it names the caller's default session."""
MAX_BODY = 64 * 1024
"""Of a request that brings no file."""
NOSNIFF = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}

_Body = TypeVar("_Body", bound=BaseModel)


class Wanted(BaseModel):
    """A body of a Jupyter client; what clients say beside what is known is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


@dataclass(frozen=True, slots=True)
class Visit:
    """A request within a session, whose policy allows what it is for."""

    request: Request
    session: Session

    def param(self, name: str) -> str:
        """A part of the path."""
        found: str = self.request.path_params[name]
        return found

    def query(self, name: str, default: str = "") -> str:
        """A value of the query."""
        return self.request.query_params.get(name, default)

    @property
    def grant(self) -> Grant:
        """What the caller's token grants."""
        found: Grant = self.request.scope["sandbox.grant"]
        return found

    def permit(self, *tools: str) -> None:
        """Refuse what the caller's token or the session's policy does not allow.

        Raises:
            NotPermitted: One of these tools.
        """
        permit_all(self.request, self.session, tools)

    @property
    def base(self) -> str:
        """Where the session's Jupyter Server is."""
        return f"/jupyter/{self.param('session_id')}"


Serve = Callable[[Visit], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class JupyterRoute:
    """What is served at a path below a session, for one method."""

    path: str
    """Below ``/jupyter/{session_id}``."""
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    tools: tuple[str, ...]
    """The tools that do the same: their scopes are needed, and that the policy allows them."""
    serve: Serve
    is_streamed: bool = False
    """Whether it keeps hold of the session itself, since its answer outlasts the call."""
    for_guest: Serve | None = None
    """What serves somebody with a token for one notebook instead; the tools are not asked for."""


def endpoint(desk: Desk, route: JupyterRoute) -> Callable[[Request], Awaitable[Response]]:
    """What answers a request at a route, as whoever made it may."""

    async def answer(request: Request) -> Response:
        grant: Grant = request.scope["sandbox.grant"]
        tools, serve, is_guest = route.tools, route.serve, grant.notebook is not None
        if is_guest and route.for_guest is not None:
            tools, serve = (), route.for_guest
        session = await visited(desk, request, tools)
        visit = Visit(request, session)
        if route.is_streamed:
            return await serve(visit)
        # A guest's page asks again and again: left open, it would keep the session for ever.
        async with session.use(counts=not is_guest):
            return await serve(visit)

    return answer


async def visited(desk: Desk, connection: HTTPConnection, tools: tuple[str, ...]) -> Session:
    """The session in the path of a request or a WebSocket, where that may be used for all these.

    Raises:
        InsufficientScope: The token has not the scope of one of them.
        NotFound: The caller has no such session.
        NotPermitted: Its policy does not allow one of them.
        SessionLost: It has ended.
    """
    grant: Grant = connection.scope["sandbox.grant"]
    for tool in tools:
        grant.require(tool)
    session = await session_named(desk, grant.caller(), connection.path_params["session_id"])
    permit_all(connection, session, tools)
    return session


def permit_all(connection: HTTPConnection, session: Session, tools: Iterable[str]) -> None:
    """Refuse what the caller's token or a session's policy does not allow.

    Raises:
        NotPermitted: One of these tools.
    """
    grant: Grant = connection.scope["sandbox.grant"]
    for tool in tools:
        grant.require(tool)
        permit_unasked(session.policy, tool)


async def session_named(desk: Desk, caller: Caller, session_id: str) -> Session:
    """The session of that id; for ``default`` the caller's default one, else the oldest that is
    open, so that it stays the same while that lives; where there is none, one is opened.

    Raises:
        NotFound: The caller has no such session.
        SessionLost: It has ended.
    """
    if session_id == DEFAULT:
        await desk.manager.ready()
        session_id = ""
        if desk.manager.ownership.default(caller) is None:
            session_id = next((each.session_id for each in desk.manager.list(caller)), "")
    return await desk.manager.get(caller, session_id)


def refusal(error: SandboxError) -> Response:
    """The response for an error of ours, in the form of a Jupyter Server's."""
    code = f"{error.code}.{error.reason}" if isinstance(error, FileError) else error.code
    headers = dict(NOSNIFF)
    if isinstance(error, InsufficientScope):
        headers["WWW-Authenticate"] = f'Bearer error="insufficient_scope", scope="{error.scope}"'
    return failed(status_of(error), error.message, error.remedy, code=code, headers=headers)


def failed(
    status: int,
    message: str,
    remedy: str = "",
    *,
    code: str = "",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A response that says what is wrong, as Jupyter clients show it."""
    whole = f"{message} {remedy}".rstrip()
    return JSONResponse(
        {"message": whole, "reason": code or None}, status, dict(headers or NOSNIFF)
    )


def told(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return JSONResponse(value, status, {**NOSNIFF, **(headers or {})})


def done() -> Response:
    """The answer when there is nothing to say."""
    return Response(status_code=204, headers=NOSNIFF)


async def none_of_them(_visit: Visit) -> Response:
    """What a guest is told who asks for a list: there is nothing in it for them."""
    return told([])


async def body(request: Request, model: type[_Body]) -> _Body:
    """The body of a request that brings no file, checked; an empty one is an empty object.

    Raises:
        InvalidRequest: It is something else than it must be.
        TooMuchWork: It is too long.
    """
    data = await whole_body(request, MAX_BODY)
    with wanted():
        return model.model_validate_json(data or b"{}")


@contextmanager
def wanted() -> Generator[None]:
    """Refuse what a client says where it is not as its model has it.

    Raises:
        InvalidRequest: So it was.
    """
    try:
        yield
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise InvalidRequest(f"{where}: {first['msg']}.") from exc
