"""A session's request for a package, answered by the gateway from the cache that all share."""

from __future__ import annotations

import os
from collections.abc import Callable

import h11

from sandbox.bulkheads.shares import Owner
from sandbox.egress.clients import Plain
from sandbox.egress.hosts import parse_authority
from sandbox.egress.meter import Meter
from sandbox.egress.packagecache import NoSuchPackage, PackageCache
from sandbox.egress.packagepages import HOST, JSON_TYPE, read_path
from sandbox.egress.rules import Verdict
from sandbox.egress.threads import in_thread
from sandbox.egress.tunnel import Refused, refusal
from sandbox.policy.destinations import Request, Target

PORT = 80
PIECE = 256 * 1024
RULE = "built-in: packages"

Judge = Callable[[Request], Verdict]
"""Judges a request by the rules of now."""


def is_for_packages(request: Request) -> bool:
    """Whether a plain HTTP request is for the gateway's own packages."""
    return request.is_http and (request.host.text, request.port) == (HOST, PORT)


class PackageAnswer:
    """The answer to one request.

    Args:
        judge: What the session's rules say of the index's own hosts: what they would not let out
            is not answered from here either.
    """

    def __init__(
        self, asked: Plain, cache: PackageCache, judge: Judge, meter: Meter, owner: Owner
    ) -> None:
        self._asked = asked
        self._cache = cache
        self._judge = judge
        self._meter = meter
        self._owner = owner

    def admit(self) -> Verdict:
        """The verdict that lets the request be answered.

        Raises:
            Refused: A rule says no, or it is no request that is answered here.
        """
        request = self._asked.request
        if request.method not in ("GET", "HEAD"):
            raise refusal(RULE, "packages are only read, with GET or HEAD")
        wanted = read_path(self._asked.head.target.decode("latin-1"))
        if wanted is None:
            raise refusal(RULE, "there is nothing of that path", f"Ask for http://{HOST}/0/NAME/")
        try:
            return self._allowed(self._cache.target_of_index(wanted.index))
        except NoSuchPackage as exc:
            raise refusal(RULE, str(exc)) from exc

    async def give(self) -> None:
        """Answer it.

        Raises:
            Refused: The file is on a host that a rule denies.
            Unreachable: The index does not say, or does not give it.
            OverLimit: The session's bytes are used up.
            SandboxError: The client gave up.
        """
        request = self._asked.request
        wanted = read_path(self._asked.head.target.decode("latin-1"))
        assert wanted is not None  # noqa: S101  # it was admitted
        try:
            project = await self._cache.page(wanted.index, wanted.project, self._owner)
            if not wanted.file:
                self._meter.received(len(project.body))
                await self._begin(200, len(project.body), JSON_TYPE)
                await self._body(b"" if request.method == "HEAD" else project.body)
            elif (file := project.files.get(wanted.file)) is None:
                raise NoSuchPackage("the page names no such file")
            else:
                self._allowed(self._cache.target_of_file(file))
                # Before it is fetched: what is given up on has cost the index all of it.
                self._meter.received(file.size_bytes or 0)
                with await self._cache.file(wanted.index, file, self._owner) as opened:
                    size = os.fstat(opened.fileno()).st_size
                    if file.size_bytes is None:
                        self._meter.received(size)
                    await self._begin(200, size, "application/octet-stream")
                    while request.method == "GET" and (
                        piece := await in_thread(lambda: opened.read(PIECE), "package-cache")
                    ):
                        await self._send(h11.Data(data=piece))
                    await self._send(h11.EndOfMessage())
        except NoSuchPackage as exc:
            told = f"{exc}\n".encode()
            await self._begin(404, len(told), "text/plain; charset=utf-8")
            await self._body(b"" if request.method == "HEAD" else told)

    def _allowed(self, target: Target) -> Verdict:
        host, port = parse_authority(f"{_bracketed(target.host)}:{target.port}", None)
        given = self._judge(Request(host, port, method="GET" if target.is_plain else ""))
        if not given.allowed or given.allow is None:
            raise Refused(given)
        if given.allow.service is None or given.allow.ask:
            raise refusal(
                given.rule,
                "packages are shared under a rule for the service alone, which asks nobody",
                "Use the index's own address",
            )
        return given

    async def _begin(self, status: int, size: int, kind: str) -> None:
        headers = [("Content-Type", kind), ("Content-Length", str(size)), ("Connection", "close")]
        await self._send(h11.Response(status_code=status, headers=headers))

    async def _body(self, body: bytes) -> None:
        if body:
            await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        if data := self._asked.parser.send(event):
            await self._asked.inbound.write(data)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
