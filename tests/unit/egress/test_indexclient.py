"""Asking an index: whose login goes where, and where a redirection may lead."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from sandbox.egress.indexclient import HttpUpstream, Source, with_login_of, without_login

from ...support.packageindex import FakeIndex, fake_index


@pytest.fixture
def index() -> Iterator[FakeIndex]:
    with fake_index() as made:
        yield made


def no_tls() -> None:
    raise AssertionError("nothing here speaks TLS")


UPSTREAM = HttpUpstream(no_tls)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://index.example/f.whl", "https://me:word@index.example/f.whl"),
        ("https://index.example:8443/f.whl", "https://index.example:8443/f.whl"),
        ("http://index.example/f.whl", "http://index.example/f.whl"),
        ("https://files.example/f.whl", "https://files.example/f.whl"),
    ],
)
def test_the_login_of_an_index_goes_to_its_own_host_alone(url: str, wanted: str) -> None:
    assert with_login_of("https://me:word@index.example/simple", url) == wanted
    assert without_login(wanted) == url


def test_a_login_is_a_header_and_not_part_of_what_is_asked(index: FakeIndex) -> None:
    index.add("thing", "thing.whl", b"x")
    UPSTREAM.page(Source(f"http://me:w%40rd@127.0.0.1:{index.port}/simple/thing/"))
    _, path, headers = index.asked[-1]
    assert path == "/simple/thing/"
    assert headers["Authorization"] == "Basic bWU6d0ByZA=="


def test_a_login_does_not_follow_a_redirection(index: FakeIndex) -> None:
    index.files["/files/x"] = b"x"
    index.redirects["/moved"] = f"http://127.0.0.1:{index.port}/files/x"
    into = io.BytesIO()
    UPSTREAM.file(Source(f"http://me:word@127.0.0.1:{index.port}/moved"), into, 10)
    assert into.getvalue() == b"x"
    assert "Authorization" not in index.asked[-1][2]


def test_a_redirection_leads_only_where_it_may(index: FakeIndex) -> None:
    index.redirects["/moved"] = f"http://127.0.0.1:{index.port}/files/x"
    source = Source(f"http://127.0.0.1:{index.port}/moved", may=lambda url: "/files/" not in url)
    with pytest.raises(ValueError, match="none of the index's"):
        UPSTREAM.file(source, io.BytesIO(), 10)
    assert index.count("/files/x") == 0


def test_a_file_larger_than_it_may_be_is_given_up(index: FakeIndex) -> None:
    index.files["/files/x"] = b"x" * 100
    with pytest.raises(ValueError, match="larger than it may be"):
        UPSTREAM.file(Source(f"http://127.0.0.1:{index.port}/files/x"), io.BytesIO(), 99)
