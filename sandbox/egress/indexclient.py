"""Asking the package index of this machine, over its own TLS; all here blocks."""

from __future__ import annotations

import base64
import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

FETCH_TIMEOUT_S = 20.0
FILE_TIMEOUT_S = 900.0
MAX_PAGE_BYTES = 16 * 1024 * 1024
PIECE = 64 * 1024
ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"


@dataclass(frozen=True, slots=True)
class Page:
    """A page of an index, JSON or HTML, and where it was in the end."""

    url: str
    is_json: bool
    text: str
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """Where something is asked for."""

    url: str
    """With the login of pip's configuration, where there is one."""
    is_trusted: bool = False
    """Whether pip's configuration says not to verify its certificate."""
    may: Callable[[str], bool] = lambda _: True
    """Whether a redirection may lead to this URL."""


class Upstream(Protocol):
    """An index that can be asked."""

    def page(self, source: Source, etag: str = "") -> Page | None:
        """A page; None when it is still the one of this ETag.

        Raises:
            FileNotFoundError: There is no such page.
            OSError, ValueError: It cannot be had, or is too large.
        """
        ...

    def file(self, source: Source, into: BinaryIO, limit_bytes: int) -> None:
        """Write a file.

        Raises:
            OSError, ValueError: It cannot be had, or is too large.
        """
        ...


class HttpUpstream:
    """The index over HTTP.

    Args:
        tls: Verifies certificates and names.
    """

    def __init__(self, tls: Callable[[], ssl.SSLContext]) -> None:
        self._tls = tls

    def page(self, source: Source, etag: str = "") -> Page | None:
        """See :class:`Upstream`."""
        headers = {"Accept": ACCEPT, **({"If-None-Match": etag} if etag else {})}
        try:
            answer = self._opened(source, headers)
        except urllib.error.HTTPError as exc:
            exc.close()
            if exc.code == http.client.NOT_MODIFIED and etag:
                return None
            if exc.code in (http.client.NOT_FOUND, http.client.GONE):
                raise FileNotFoundError("the index has no such page") from exc
            raise OSError(f"it answers {exc.code}") from exc
        raw = bytearray()
        until = time.monotonic() + FETCH_TIMEOUT_S
        with closing(answer), _translated():
            while piece := answer.read1(PIECE):
                raw += piece
                if len(raw) > MAX_PAGE_BYTES:
                    raise ValueError("its page is too large")
                if time.monotonic() > until:
                    raise TimeoutError("its page does not come to an end")
            return Page(
                str(answer.geturl()),
                str(answer.headers.get_content_type()).endswith("json"),
                raw.decode("utf-8", "replace"),
                str(answer.headers.get("ETag") or "")[:200],
            )

    def file(self, source: Source, into: BinaryIO, limit_bytes: int) -> None:
        """See :class:`Upstream`."""
        size = 0
        until = time.monotonic() + FILE_TIMEOUT_S
        try:
            opened = self._opened(source, {"Accept-Encoding": "identity"})
        except urllib.error.HTTPError as exc:
            exc.close()
            raise OSError(f"it answers {exc.code}") from exc
        with closing(opened) as answer, _translated():
            while piece := answer.read1(PIECE):
                size += len(piece)
                if size > limit_bytes:
                    raise ValueError("its file is larger than it may be")
                if time.monotonic() > until:
                    raise TimeoutError("its file does not come to an end")
                into.write(piece)

    def _opened(self, source: Source, headers: dict[str, str]) -> Any:
        context = self._tls() if source.url.startswith("https:") else None
        if source.is_trusted:  # as the operator's configuration of pip says
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        parts = urlsplit(source.url)
        request = urllib.request.Request(without_login(source.url), headers=headers)  # noqa: S310
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            token = base64.b64encode(login.encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {token}")
        handlers = (urllib.request.HTTPSHandler(context=context), _Redirections(source.may))
        with _translated():
            return urllib.request.build_opener(*handlers).open(request, timeout=FETCH_TIMEOUT_S)


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows redirections to where they may lead."""

    def __init__(self, may: Callable[[str], bool]) -> None:
        self._may = may

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The request for what is elsewhere."""
        if not self._may(newurl):
            fp.close()
            raise ValueError("it leads to a host that is none of the index's")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def _translated() -> Generator[None]:
    """An answer that is no HTTP, or breaks off, and a URL that is none, are errors of the index."""
    try:
        yield
    except http.client.HTTPException as exc:
        raise OSError(f"it does not answer as HTTP wants: {type(exc).__name__}") from exc


def without_login(url: str) -> str:
    """A URL without a user's name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def with_login_of(index_url: str, url: str) -> str:
    """A URL with the login of the index, if it is on the same host and port."""
    index, parts = urlsplit(index_url), urlsplit(url)
    login, at, host = index.netloc.rpartition("@")
    is_same = at and (index.scheme, host) == (parts.scheme, parts.netloc)
    return parts._replace(netloc=f"{login}@{host}").geturl() if is_same else url
