"""Heads of HTTP requests."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.egress.heads import BadHead, connect_target, parse_head, plain_target, with_header
from sandbox.egress.hosts import parse_host
from sandbox.policy.destinations import Request


def lines(*text: str) -> bytes:
    """A head of these lines."""
    return "\r\n".join((*text, "", "")).encode("latin-1")


def post(*headers: str) -> bytes:
    """A head with these headers."""
    return lines("POST http://e.example/ HTTP/1.1", "Host: e.example", *headers)


def plain(*text: str, tunnel: Request | None = None) -> tuple[Request, bytes]:
    """Where a request goes, and the head that is sent there."""
    head, _ = parse_head(lines(*text))
    request, outgoing = plain_target(head, tunnel)
    sent = b"".join(name + b": " + value + b"\n" for name, value in outgoing.headers.raw_items())
    return request, outgoing.method + b" " + outgoing.target + b"\n" + sent


def test_a_connect_names_host_and_port() -> None:
    head, _ = parse_head(
        lines("CONNECT API.example.com:8443 HTTP/1.1", "Host: api.example.com:8443")
    )
    assert connect_target(head) == Request(parse_host("api.example.com"), 8443)


def test_a_proxys_request_becomes_one_of_its_host_without_what_is_the_proxys() -> None:
    request, sent = plain(
        "GET http://example.com/a?b HTTP/1.1",
        "Host: example.com",
        "Proxy-Authorization: Basic eA==",
        "Proxy-Connection: keep-alive",
        "Connection: x-mine, content-length",
        "X-Mine: 1",
        "Upgrade: h2c",
        "Accept: */*",
    )
    assert request == Request(parse_host("example.com"), 80, "GET", "/a", has_port=False)
    assert sent == b"GET /a?b\nHost: example.com\nAccept: */*\nConnection: close\n"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://example.com", "/"),
        ("http://example.com?x", "/"),
        ("HTTP://example.com:8080/x", "/x"),
        ("http://[2606:4700::1]:81/x", "/x"),
    ],
)
def test_every_form_of_a_url_has_a_path(url: str, path: str) -> None:
    authority = url.split("/")[2].partition("?")[0]
    request, _ = plain(f"GET {url} HTTP/1.1", f"Host: {authority}")
    assert request.path == path


def test_within_a_tunnel_a_request_is_for_its_host() -> None:
    tunnel = Request(parse_host("example.com"), 80)
    request, sent = plain("GET /x HTTP/1.1", "Host: example.com", tunnel=tunnel)
    assert (request.path, sent.split(b"\n")[0]) == ("/x", b"GET /x")
    for host in ("other.example", "example.com:81"):
        with pytest.raises(BadHead):
            plain("GET /x HTTP/1.1", f"Host: {host}", tunnel=tunnel)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET http://e.example/ HTTP/1.1\nHost: e.example\n\r\n\r\n",
        b"GET http://e.example/ HTTP/1.1\r\nHost: e.example\r\nX: a\r\n b\r\n\r\n",
        b"GET http://e.example/ HTTP/1.1\r\nHost: e.example\r\nX: a\rY: b\r\n\r\n",
        b"GET http://e.example/ HTTP/1.1\r\nHost: e.example\r\nX: \0\r\n\r\n",
        post("Content-Length: 1", "Transfer-Encoding: chunked"),
        post("Content-Length: 1", "Content-Length: 2"),
        post("Content-Length: 1", "Content-Length: 1"),
        post("Content-Length: +1"),
        post("Content-Length: 1, 1"),
        post("Transfer-Encoding: xchunked"),
        post("Transfer-Encoding: chunked, identity"),
        post("Transfer-Encoding : chunked"),
        lines("GET http://e.example/ HTTP/1.1", "Host: e.example", "Host: e.example"),
        lines("GET http://e.example/ HTTP/1.1"),
        lines("GET http://e.example/ HTTP/2.0", "Host: e.example"),
        lines("CONNECT e.example:443 HTTP/1.1", "Host: e.example:443", "Content-Length: 5"),
        lines("GET"),
        lines(""),
    ],
)
def test_a_head_that_could_be_read_in_two_ways_is_refused(raw: bytes) -> None:
    with pytest.raises(BadHead):
        parse_head(raw)


@pytest.mark.parametrize(
    "text",
    [
        ("GET / HTTP/1.1", "Host: e.example"),
        ("GET https://e.example/ HTTP/1.1", "Host: e.example"),
        ("GET ftp://e.example/ HTTP/1.1", "Host: e.example"),
        ("GET http://user@e.example/ HTTP/1.1", "Host: e.example"),
        ("GET http://e.example/ HTTP/1.1", "Host: other.example"),
        ("GET http://e.example/ HTTP/1.1", "Host: e.example:81"),
        ("GET http://e.example/a#b HTTP/1.1", "Host: e.example"),
        ("GET http:///x HTTP/1.1", "Host: e.example"),
        ("GET http://0x7f.1/ HTTP/1.1", "Host: 0x7f.1"),
        ("TRACE http://e.example/ HTTP/1.1", "Host: e.example"),
        ("OPTIONS * HTTP/1.1", "Host: e.example"),
    ],
)
def test_a_proxy_is_asked_for_a_whole_url_of_one_host(text: tuple[str, ...]) -> None:
    with pytest.raises(BadHead):
        plain(*text)


@pytest.mark.parametrize(
    "target",
    ["example.com", "example.com:0", "http://example.com:443", "a:1:2", ":443", "0x7f.1:443"],
)
def test_a_connect_names_nothing_else(target: str) -> None:
    head, _ = parse_head(lines(f"CONNECT {target} HTTP/1.1", "Host: example.com"))
    with pytest.raises(BadHead):
        connect_target(head)


def test_a_header_that_is_set_replaces_every_one_of_its_name() -> None:
    head, _ = parse_head(
        lines(
            "GET http://e.example/ HTTP/1.1",
            "Host: e.example",
            "authorization: mine",
            "Authorization: too",
        )
    )
    _, outgoing = plain_target(head, None)
    made = with_header(outgoing, "Authorization", "Bearer secret")
    values = [value for name, value in made.headers if name == b"authorization"]
    assert values == [b"Bearer secret"]


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    for raw in (data, post()[:-2] + data + b"\r\n\r\n"):
        with suppress(BadHead):
            head, _ = parse_head(raw)
            plain_target(head, None)


@pytest.mark.parametrize(
    "name",
    [
        *("X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override", "X-Method-Override"),
        *("X-HTTP-Method", "X-Forwarded-Host", "X-Forwarded-Prefix", "Forwarded", "X-Host"),
        *("X_Original_URL", "x_http_method_override", "X-Original-URI", "X-Real-URL"),
    ],
)
def test_a_header_that_may_name_another_request_is_told(name: str) -> None:
    request, _ = plain("GET http://e.example/ HTTP/1.1", "Host: e.example", f"{name}: /admin")
    assert request.override == name.lower()


@pytest.mark.parametrize("name", ["X-Real-IP", "X-Request-Id", "Accept", "X-Goog-Meta-Path"])
def test_other_headers_name_no_other_request(name: str) -> None:
    request, _ = plain("GET http://e.example/ HTTP/1.1", "Host: e.example", f"{name}: /admin")
    assert request.override == ""


@pytest.mark.parametrize(
    "line", ["Content_Length: 5", "Transfer_Encoding: chunked", "content_length:5", "X_Y: 1"]
)
def test_underscored_doubles_of_framing_headers_are_refused(line: str) -> None:
    if line.startswith("X"):
        parse_head(post(line))
        return
    with pytest.raises(BadHead, match="`_`"):
        parse_head(post(line))
