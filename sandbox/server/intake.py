"""What one principal may have under way at a time, and how what it sends is taken in.

Behind the gate, so whose a request is is known. A request is one of so many of its principal; what
it sends must keep coming; and a message for MCP, which has to be taken in as a whole before it is
parsed, counts with all of its size until it is answered, for it costs several times that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from itertools import islice

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.bulkheads.bulkhead import Section
from sandbox.errors import InvalidRequest, QuotaExceeded, SandboxError, TooMuchWork
from sandbox.policy.units import MIB
from sandbox.server.auth import GUARDED
from sandbox.server.grants import Grant
from sandbox.server.problems import problem, problem_of

MAX_MCP_BODY = 4 * MIB
MAX_HELD_PER_PRINCIPAL = 16 * MIB
"""Of all messages of one principal that are not answered yet."""
MAX_HELD = 48 * MIB
"""The same of everybody."""
SILENCE_S = 60.0
"""How long a body may stand still."""
BODY_S = 60.0
"""How long a message may take to come."""
MAX_VALUES = 10_000
"""The values in a message. Parsed, each takes some 60 bytes, as little as ``[]`` may be."""

_FILE = re.compile(rf"{GUARDED}/sessions/[^/]+/files/")
_VALUE = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{,]', re.DOTALL)


class Intake:
    """Takes requests in, of one principal so many at a time, for what stands behind the gate."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._requests: Counter[str] = Counter()
        self._held: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        grant: Grant | None = scope.get("sandbox.grant")
        if grant is None:
            await self._app(scope, receive, send)
            return
        principal = grant.principal
        if self._requests[principal] >= self._most:
            error = QuotaExceeded(
                f"{self._most} requests of yours are under way, which is as many as may be.",
                remedy="Wait until some are answered.",
            )
            await problem_of(error)(scope, receive, send)
            return
        self._requests[principal] += 1
        size = 0
        try:
            if scope["type"] == "http":
                receive = _steady(receive)
            if scope["type"] == "http" and _is_message(scope):
                body = bytearray()
                try:
                    with anyio.fail_after(BODY_S):
                        async for piece in _pieces(receive):
                            body += piece
                            size += len(piece)
                            self._hold(principal, len(piece), len(body))
                    _check_values(body, principal)
                except ClientDisconnect:
                    return
                except TimeoutError:
                    slow = problem(408, f"The message did not come within {BODY_S:g} s.")
                    await slow(scope, receive, send)
                    return
                except SandboxError as exc:
                    await problem_of(exc)(scope, receive, send)
                    return
                receive = _replayed(bytes(body), receive)
            await self._app(scope, receive, send)
        finally:
            self._release(principal, size)

    def _hold(self, principal: str, size: int, whole: int) -> None:
        """Count a piece of a body.

        Raises:
            QuotaExceeded: It is too much beside what else is under way.
            TooMuchWork: It is too long by itself.
        """
        self._held[principal] += size
        if whole > MAX_MCP_BODY:
            raise TooMuchWork(f"The message is longer than {MAX_MCP_BODY:,} bytes.")
        if self._held[principal] > MAX_HELD_PER_PRINCIPAL:
            raise QuotaExceeded(
                f"Messages of yours of more than {MAX_HELD_PER_PRINCIPAL:,} bytes are under way.",
                remedy="Wait until some are answered, or send less at once.",
            )
        if self._held.total() > MAX_HELD:
            raise QuotaExceeded("Too much is being sent at the moment.", remedy="Try again soon.")

    def _release(self, principal: str, size: int) -> None:
        for counter, amount in ((self._requests, 1), (self._held, size)):
            counter[principal] -= amount
            if counter[principal] <= 0:
                del counter[principal]


def _is_message(scope: Scope) -> bool:
    """Whether the body of a request is parsed; that of a file is not."""
    method, path = scope["method"], scope["path"]
    if method == "PUT":
        return _FILE.match(path) is None
    return method == "POST" and f"{path}/".startswith(f"{GUARDED}/")


def _steady(receive: Receive) -> Receive:
    """The same, while a body is awaited: a body that stands still is over."""
    is_whole = False

    async def steady() -> Message:
        nonlocal is_whole
        if is_whole:
            return await receive()
        with anyio.move_on_after(SILENCE_S):
            message = await receive()
            is_whole = message["type"] != "http.request" or not message.get("more_body", False)
            return message
        return {"type": "http.disconnect"}

    return steady


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    """The pieces of a body.

    Raises:
        ClientDisconnect: It did not come as a whole.
    """
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


def _check_values(body: bytearray, principal: str) -> None:
    """Refuse JSON of a great many values before it is parsed.

    Raises:
        InvalidRequest: It is no JSON in UTF-8.
        TooMuchWork: It has too many.
    """
    with Section("a message", principal):
        if b"\0" in body:  # in another encoding of JSON, what is a text is not told apart here
            raise InvalidRequest("The message is no JSON in UTF-8.")
        if sum(1 for _ in islice(_VALUE.finditer(body), 2 * MAX_VALUES)) == 2 * MAX_VALUES:
            raise TooMuchWork(f"The message has more than {MAX_VALUES:,} values.")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A request's messages when its body has been taken in."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return first.pop() if first else await receive()

    return replayed
