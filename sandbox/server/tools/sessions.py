"""Opening, finding and closing sessions."""

from __future__ import annotations

from typing import Annotated

from mcp_types import CallToolResult
from pydantic import BaseModel

from sandbox.egress.models import Tightening
from sandbox.server import arguments as arg
from sandbox.server.desk import caller_of
from sandbox.server.forks import fork_in_words, left_in_words, telling
from sandbox.server.http.place import Http
from sandbox.server.room import MAX_RULES, with_room
from sandbox.server.tool import CallContext, ToolGroup, reply, tool
from sandbox.sessions.forking import Fork, Progress
from sandbox.sessions.models import SessionInfo


class SessionList(BaseModel):
    """The caller's sessions."""

    sessions: list[SessionInfo]


class SessionTools(ToolGroup):
    """The tools that act on sessions as such. No policy takes them away."""

    @tool(
        "Open a session",
        http=Http("POST", "/sessions", 201, location="/sessions/{session_id}"),
    )
    async def open_session(
        self,
        ctx: CallContext,
        policy: arg.PolicyName = "",
        name: arg.SessionName = "",
        workspace: arg.Workspace = "",
        reuse: arg.Reuse = True,
        checkpoint: arg.Checkpointing = "",
    ) -> Annotated[CallToolResult, SessionInfo]:
        """Open an isolated container, or reuse yours, and answer its session_id.

        Needed only for a policy, a workspace, checkpoints or a further session. One with a
        workspace is never the default.
        """
        session = await self._manager.open(
            caller_of(ctx),
            policy=policy,
            name=name,
            workspace=workspace,
            reuse=reuse,
            checkpoint=checkpoint,
        )
        info = with_room(session)
        return reply(info, _told(info))

    @tool(
        "List sessions",
        reads=True,
        http=Http("GET", "/sessions", items="sessions"),
    )
    async def list_sessions(self, ctx: CallContext) -> Annotated[CallToolResult, SessionList]:
        """List your open sessions, each with its policy and expiry."""
        found = SessionList(sessions=self._manager.list(caller_of(ctx)))
        lines = [_line(info) for info in found.sessions]
        return reply(found, "\n".join(lines) or "You have no open session.")

    @tool(
        "Look at a session",
        repeatable=True,
        http=Http("GET", "/sessions/{session_id}"),
    )
    async def get_session(
        self, ctx: CallContext, session_id: arg.SessionId = ""
    ) -> Annotated[CallToolResult, SessionInfo]:
        """Look at a session: what it has (`room`), limits, network, kernels, expiry, proof of
        isolation."""
        session = await self._manager.get(caller_of(ctx), session_id)
        info = with_room(session, with_proof=True)
        return reply(info, f"{_told(info)} {_proved(info)}")

    @tool(
        "Tighten a session's network",
        repeatable=True,
        http=Http("POST", "/sessions/{session_id}/tighten"),
    )
    async def tighten_session(
        self,
        ctx: CallContext,
        session_id: arg.SessionId = "",
        network: arg.NetworkTaken = "",
        deny: arg.Denied = (),
    ) -> Annotated[CallToolResult, SessionInfo]:
        """Take network from a live session, at once and for good; open connections are cut."""
        more = Tightening.of(network, deny)
        info = await self._manager.tighten(caller_of(ctx), session_id, more)
        return reply(info, _line(info))

    @tool(
        "Fork a session",
        http=Http("POST", "/sessions/{session_id}/fork", 201),
    )
    async def fork_session(
        self,
        ctx: CallContext,
        session_id: arg.SessionId = "",
        name: arg.SessionName = "",
        count: arg.Forks = 1,
    ) -> Annotated[CallToolResult, Fork]:
        """Copy a session into a new container: files, and Python variables where they can be
        pickled; says what was left."""
        progress = Progress()
        async with telling(ctx, progress):
            found = await self._manager.forks.fork(
                caller_of(ctx), session_id, name=name, count=count, progress=progress
            )
        return reply(found, *(fork_in_words(each) for each in found.sessions), left_in_words(found))

    @tool(
        "Close a session",
        destroys=True,
        http=Http("DELETE", "/sessions/{session_id}"),
    )
    async def close_session(
        self, ctx: CallContext, session_id: arg.SessionId = ""
    ) -> Annotated[CallToolResult, SessionInfo]:
        """Close a session for good: its kernels, processes and files are gone, but for a named
        workspace's."""
        info = await self._manager.close(caller_of(ctx), session_id)
        said = f"Session {info.session_id} is closed and its container removed."
        return reply(info, f"{said}{_kept(info)}")


def _kept(info: SessionInfo) -> str:
    if not info.workspace_name:
        return ""
    name = f"The workspace {info.workspace_name!r}"
    if info.workspace_saved_at is None:
        return f" {name} could not be saved, and nothing of it is kept: {info.workspace_problem}"
    kept = f" {name} is kept as of {info.workspace_saved_at:.0f} (Unix time)"
    if info.workspace_problem:
        return f"{kept}; what changed since is lost: {info.workspace_problem}"
    return f"{kept}, {info.workspace_bytes} bytes."


def _network(info: SessionInfo) -> str:
    allow = info.network.allow
    if not allow:
        return "No network."
    shown = "; ".join(allow[:MAX_RULES])
    return f"Network: {shown}{' and more' if len(allow) > MAX_RULES else ''}; all else is denied."


def _proved(info: SessionInfo) -> str:
    proof = info.proof
    if proof is None:
        return "Its isolation is not proved yet."
    wrong = [check.name for check in proof.checks if not check.ok]
    failed = f"; not as they must be: {', '.join(wrong)}" if wrong else ""
    return (
        f"Its isolation: {proof.inspected} facts told by the engine and {info.checks_passed} "
        f"measured inside are as the policy says{failed}."
    )


def _line(info: SessionInfo) -> str:
    return f"{_head(info)} {_network(info)}"


def _told(info: SessionInfo) -> str:
    return f"{_head(info)} It has {info.room}{_rest(info)}"


def _rest(info: SessionInfo) -> str:
    """Whether it is frozen, or why not, once that was looked at."""
    if info.frozen_since is not None:
        return (
            f" It is frozen since {info.frozen_since:.0f} (Unix time), as nothing went on; its "
            "next use lets it go on."
        )
    awake = "; ".join(info.awake_because)
    return f" It is not frozen, for something goes on: {awake}." if awake else ""


def _head(info: SessionInfo) -> str:
    name = f" {info.name!r}" if info.name else ""
    name += f" (forked from {info.forked_from})" if info.forked_from else ""
    kept = f" (kept as {info.workspace_name!r})" if info.workspace_name else ""
    return (
        f"Session {info.session_id}{name}: policy {info.policy}, image {info.image}, runtime "
        f"{info.runtime}, workspace {info.workspace}{kept}, {len(info.kernels)} kernels."
    )
