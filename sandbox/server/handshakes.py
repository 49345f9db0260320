"""What the server keeps for clients that shook hands: an MCP session of the SDK for each.

Such a client begins with ``initialize``, and some 40 kB are kept for it until it says goodbye or
half an hour has passed. Of one principal, and in all, there are so many: past that the one that
has been idle longest is ended, and whoever used it is told so when it calls again.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.errors import QuotaExceeded
from sandbox.server.auth import GUARDED
from sandbox.server.grants import Grant
from sandbox.server.problems import problem, problem_of
from sandbox.server.replays import Replay, Replays
from sandbox.sessions.conversations import Conversation, Conversations
from sandbox.sessions.models import passing_key

MAX_PER_PRINCIPAL = 64
MAX_IN_ALL = 1024
REMEMBERED = 1000
"""So many that were ended are told apart from those that never were."""
SESSION_HEADER = b"mcp-session-id"
VERSION_HEADER = b"mcp-protocol-version"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Handshake:
    """What is known of one of them."""

    session_id: str
    principal: str
    user: Any
    """Whom the SDK binds it to."""
    conversation: Conversation
    replay: Replay


class Handshakes:
    """Bounds the MCP sessions of an application; the SDK's own, which this stands before."""

    def __init__(
        self,
        app: ASGIApp,
        conversations: Conversations,
        replays: Replays,
        most_per_principal: int = MAX_PER_PRINCIPAL,
        most: int = MAX_IN_ALL,
    ) -> None:
        self._app = app
        self._conversations = conversations
        self._replays = replays
        self._most_per_principal = most_per_principal
        self._most = most
        self._known: dict[str, _Handshake] = {}
        self._opening: Counter[str] = Counter()
        self._ended: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        grant: Grant | None = scope.get("sandbox.grant")
        if scope["type"] != "http" or scope["path"] != GUARDED or grant is None:
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        named = headers.get(SESSION_HEADER, b"").decode("latin-1")
        version = headers.get(VERSION_HEADER, b"").decode("latin-1")
        if version and version not in HANDSHAKE_PROTOCOL_VERSIONS:
            await self._app(scope, receive, send)  # of a client that needs none
        elif (grant.principal, named) in self._ended:
            await problem(
                404,
                "This MCP session was ended to make room for newer ones of yours.",
                "Initialize another one, and end those that you no longer use.",
            )(scope, receive, send)
        elif handshake := self._known.get(named):
            await self._serve(handshake, scope, receive, send)
        elif not named and scope["method"] == "POST":
            await self._open(grant, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve(
        self, handshake: _Handshake, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve a request of one that there is; the SDK knows whether it may."""
        serving = self._conversations.serving(handshake.conversation)
        with serving, self._replays.serving(handshake.replay):
            status = await _status(self._app, scope, receive, send)
        if scope["method"] == "DELETE" and status == 200:
            self._forget(handshake)

    async def _open(self, grant: Grant, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that may begin another one."""
        principal = grant.principal
        if not await self._make_room(principal):
            error = QuotaExceeded(
                "You have as many MCP sessions as may be, and none of them is idle.",
                remedy="End one with DELETE.",
            )
            await problem_of(error)(scope, receive, send)
            return
        self._opening[principal] += 1
        serving = ExitStack()
        replay = self._replays.begin(principal)
        is_kept = False

        async def notice(message: Message) -> None:
            nonlocal is_kept
            if message["type"] == "http.response.start" and message["status"] < 400:
                made = dict(message["headers"]).get(SESSION_HEADER, b"").decode("latin-1")
                if made:
                    key = passing_key(grant.token_id, made)
                    conversation = self._conversations.begin(key)
                    serving.enter_context(self._conversations.serving(conversation))
                    user = scope.get("user")
                    self._known[made] = _Handshake(made, principal, user, conversation, replay)
                    is_kept = True
            await send(message)

        try:
            with serving, self._replays.serving(replay):
                await self._app(scope, receive, notice)
        finally:
            if not is_kept:
                self._replays.end(replay)
            self._opening -= Counter((principal,))  # which keeps none of zero

    async def _make_room(self, principal: str) -> bool:
        """End what has been idle longest until there may be another one of a principal's."""
        while True:
            own = [each for each in self._known.values() if each.principal == principal]
            if len(own) + self._opening[principal] >= self._most_per_principal:
                crowd = own
            elif len(self._known) + self._opening.total() >= self._most:
                crowd = list(self._known.values())
            else:
                return True
            idle = [each for each in crowd if not each.conversation.requests]
            if not idle:
                return False
            await self._end(min(idle, key=lambda each: each.conversation.used_at))

    def _forget(self, handshake: _Handshake) -> None:
        self._known.pop(handshake.session_id, None)
        self._conversations.end(handshake.conversation)
        self._replays.end(handshake.replay)

    async def _end(self, handshake: _Handshake) -> None:
        """End one as its client would."""
        self._forget(handshake)
        self._ended[handshake.principal, handshake.session_id] = None
        if len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
        logger.info("an MCP session of %s was ended to make room", handshake.principal)
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "DELETE",
            "scheme": "http",
            "path": GUARDED,
            "raw_path": GUARDED.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(SESSION_HEADER, handshake.session_id.encode("latin-1"))],
            "user": handshake.user,
        }
        await _status(self._app, scope, _nothing, _nowhere)


async def _status(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> int:
    """Serve a request, and return the status of its answer; 0 when there was none."""
    status = 0

    async def notice(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        await send(message)

    await app(scope, receive, notice)
    return status


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _nowhere(message: Message) -> None:
    del message
