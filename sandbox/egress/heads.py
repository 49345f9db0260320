"""Heads of HTTP requests, read strictly; pure.

A gateway and a server that read one request in two ways are a hole in every rule about methods and
paths. So what is unusual is refused: line ends other than CRLF, folded headers, two lengths, two
hosts. What goes on is written anew by h11.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import h11

from sandbox.egress.hosts import BadHost, parse_authority
from sandbox.policy.destinations import Host, Request

MAX_HEAD = 16 * 1024
"""Of a request's line and headers."""
END_OF_HEAD = b"\r\n\r\n"

Headers = Sequence[tuple[bytes, bytes]]

_STRAY = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0|\n[ \t]")
_PATH = re.compile(r"/[!-~]*")
_HOP_BY_HOP = frozenset(
    (
        *(b"connection", b"proxy-connection", b"keep-alive", b"proxy-authorization"),
        *(b"proxy-authenticate", b"te", b"upgrade", b"http2-settings", b"host"),
    )
)
_LENGTHS = (b"content-length", b"transfer-encoding")
# What servers, and what stands before them, take for another method, path or host than the request
# names: the frameworks' own names, and those of whole families.
_OVERRIDE = re.compile(
    rb"(x-)?forwarded(-.*)?|(x-)?(original|rewrite|rewritten|override|real|proxy)-(url|uri|path"
    rb"|host|method|request)|x-(http-)?(method|path|url|uri|host|request-uri|rewrite)"
    rb"|x-.*-override|x-envoy-original-.*|request-uri"
)
_FRAMING = _HOP_BY_HOP | {*_LENGTHS, b"trailer"}
_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))


class BadHead(Exception):
    """What came is no request that is understood.

    Args:
        host: The host as far as it could be told, unchecked.
        port: Its port; 0 when unknown.
    """

    def __init__(self, reason: str, host: str = "?", port: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.host = host
        self.port = port


def parse_head(raw: bytes) -> tuple[h11.Request, h11.Connection]:
    """Read the head of a request, with the empty line at its end.

    Returns:
        The head, and the parser that goes on with the body.

    Raises:
        BadHead: It is not one, or could be read in more than one way.
    """
    if _STRAY.search(raw):
        raise BadHead("the request has stray line ends, NUL or folded headers")
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    try:
        parser.receive_data(raw)
        head = parser.next_event()
    except h11.RemoteProtocolError as exc:
        raise BadHead(f"the request is malformed: {exc}") from exc
    if not isinstance(head, h11.Request) or head.http_version not in (b"1.0", b"1.1"):
        raise BadHead("the request is not HTTP/1.1")
    # As they came, for h11 makes one of what agrees.
    fields = [line.lower().partition(b":")[::2] for line in raw.split(b"\r\n")[1:]]
    if any(b"_" in name and _hyphened(name) in _FRAMING for name, _ in fields):
        raise BadHead("the request has a header that says where it ends, written with `_`")
    lengths = [value for name, value in fields if name in _LENGTHS]
    if len(lengths) > 1 or b"," in b"".join(lengths) or (lengths and head.method == b"CONNECT"):
        raise BadHead("the request says its length more than once, or where it has none")
    return head, parser


def connect_target(head: h11.Request) -> Request:
    """Where a CONNECT wants to go.

    Raises:
        BadHead: It names no host and port, or Host another one.
    """
    return Request(*_authority(head.target, None, head))


def plain_target(head: h11.Request, tunnel: Request | None) -> tuple[Request, h11.Request]:
    """Where a plain HTTP request wants to go, and the head to send there.

    Args:
        tunnel: The tunnel it came in, which names the host then; None for a proxy's request.

    Raises:
        BadHead: It is not of the form that belongs there, or names two hosts.
    """
    if head.method not in _METHODS:
        raise BadHead("the request has another method than those of plain HTTP")
    if tunnel is not None:
        host, port, has_port, target = tunnel.host, tunnel.port, True, head.target
        _check_host(head, host, port, 80)
    elif head.target.lower().startswith(b"http://"):
        rest = head.target[7:]
        end = next((i for i, c in enumerate(rest) if c in b"/?#"), len(rest))
        host, port = _authority(rest[:end], 80, head)
        has_port = b":" in rest[:end].rpartition(b"]")[2]
        target = rest[end:]
    else:
        raise BadHead("a proxy is asked for http://HOST/PATH, or with CONNECT HOST:PORT")
    text = target.decode("latin-1")
    if not text.startswith("/"):
        text = f"/{text}"
    if not _PATH.fullmatch(text) or "#" in text:
        raise BadHead("the request's path is malformed", host.text, port)
    overrides = (name for name, _ in head.headers if _OVERRIDE.fullmatch(_hyphened(name)))
    request = Request(
        host,
        port,
        head.method.decode(),
        text.partition("?")[0],
        has_port,
        next(overrides, b"").decode("latin-1"),
    )
    said = f"{host}" if port == 80 else f"{request}"
    headers = [(b"Host", said.encode()), *end_to_end(head.headers.raw_items())]
    return request, h11.Request(
        method=head.method, target=text, headers=[*headers, (b"Connection", b"close")]
    )


def with_header(head: h11.Request, name: str, value: str) -> h11.Request:
    """A head in which a header has this value, whatever it had before."""
    wanted = name.lower().encode()
    kept = [pair for pair in head.headers.raw_items() if pair[0].lower() != wanted]
    return h11.Request(
        method=head.method, target=head.target, headers=[*kept, (name.encode(), value.encode())]
    )


def _hyphened(name: bytes) -> bytes:
    """A header's name as gateways to CGI and its like make one of it."""
    return name.strip().lower().replace(b"_", b"-")


def end_to_end(headers: Headers) -> Headers:
    """The headers that are not of one connection alone."""
    named = {
        token.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for token in value.split(b",")
    }
    # What Connection names must not take away what says where the message ends.
    dropped = _HOP_BY_HOP | (named - {b"content-length", b"transfer-encoding"})
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def _authority(raw: bytes, default_port: int | None, head: h11.Request) -> tuple[Host, int]:
    text = raw.decode("latin-1")
    try:
        host, port = parse_authority(_utf8(raw), default_port)
    except BadHost as exc:
        shown, _, port_text = text.rpartition(":")
        known = int(port_text) if port_text.isdecimal() and len(port_text) < 6 else 0
        raise BadHead(f"the host cannot be used: {exc}", shown or text, known) from exc
    _check_host(head, host, port, default_port)
    return host, port


def _check_host(head: h11.Request, host: Host, port: int, default_port: int | None) -> None:
    """Refuse a request whose Host header names another host than the request does."""
    said = next((value for name, value in head.headers if name == b"host"), None)
    if said is None:
        return
    try:
        found, found_port = parse_authority(_utf8(said), default_port or port)
    except BadHost as exc:
        raise BadHead(f"the Host header cannot be used: {exc}", host.text, port) from exc
    if found.text != host.text or found_port != port:
        raise BadHead(f"the Host header names another host than {host}", host.text, port)


def _utf8(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise BadHost("it is not UTF-8") from exc
