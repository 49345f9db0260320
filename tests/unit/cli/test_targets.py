"""Which controller and which session a command means, and whose token it sends."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sandbox.cli.copy import Copying, CopyPlace
from sandbox.cli.newsession import check_remote, new_session, permits_installing
from sandbox.cli.remoteerrors import of_problem
from sandbox.cli.restclient import RestClient
from sandbox.cli.targets import ControllerTarget, resolved
from sandbox.config import Settings
from sandbox.errors import (
    FileError,
    InfrastructureError,
    InvalidRequest,
    NotFound,
    NotPermitted,
    QuotaExceeded,
)
from sandbox.policy import explain, load
from sandbox.resources import policies
from sandbox.server.localtoken import server_token

SESSIONS: list[Any] = [
    {"session_id": "s-abc1", "name": "mine"},
    {"session_id": "s-abd2", "name": "s-x"},
    {"session_id": "s-abd2x", "name": ""},
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("s-abc1", "s-abc1"), ("s-abc", "s-abc1"), ("mine", "s-abc1"), ("s-abd2", "s-abd2")],
)
def test_a_session_is_meant_by_its_id_its_beginning_or_its_name(wanted: str, found: str) -> None:
    assert resolved(wanted, SESSIONS, "here") == found


def test_a_beginning_of_several_is_refused_and_they_are_named() -> None:
    with pytest.raises(InvalidRequest, match="s-abc1, s-abd2"):
        resolved("s-ab", SESSIONS, "here")


@pytest.mark.parametrize("wanted", ["absent", "", "abc1", "min"])
def test_a_session_that_is_not_there_is_an_error_that_says_what_to_do(wanted: str) -> None:
    with pytest.raises(NotFound) as caught:
        resolved(wanted, SESSIONS, "here")
    assert "s-abc1" in caught.value.remedy
    assert "sandbox sessions list" in caught.value.remedy


def announced(tmp_path: Path, url: str) -> Settings:
    settings = Settings(state_dir=tmp_path)
    server_token(settings, tmp_path)
    (tmp_path / "server.json").write_text(json.dumps({"url": url, "pid": 1}))
    return settings


def test_the_local_token_goes_to_the_server_of_the_state_folder_and_to_no_other(
    tmp_path: Path,
) -> None:
    settings = announced(tmp_path, "http://127.0.0.1:8000")
    assert ControllerTarget(served=True).client(settings).url == "http://127.0.0.1:8000"
    assert (
        ControllerTarget("http://127.0.0.1:8000/mcp/v1").client(settings).url
        == "http://127.0.0.1:8000"
    )
    for url in ("http://127.0.0.1:8001", "https://example.org"):
        with pytest.raises(InvalidRequest, match="no usable token"):
            ControllerTarget(url).client(settings)


@pytest.mark.parametrize(
    "url", ["http://a:99999", "http://a:b", "http://[::1", "http://", "ftp://a", "a.example"]
)
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="no URL of a server"):
        RestClient(url, "t")


@pytest.mark.anyio
async def test_a_session_that_is_gone_at_the_end_does_not_hide_how_the_command_ended(
    tmp_path: Path,
) -> None:
    class Client:
        async def __aenter__(self) -> Client:
            return self

        async def __aexit__(self, *_exc: object) -> None: ...

        async def call(self, method: str, *_path: str, **_more: Any) -> Any:
            if method == "DELETE":
                raise NotFound("There is no such session.")
            return {"session_id": "s-1"}

    target: Any = SimpleNamespace(is_remote=True, client=lambda _: Client())
    with pytest.raises(QuotaExceeded):
        async with new_session(Settings(state_dir=tmp_path), target, "", "sandbox run", {}):
            raise QuotaExceeded("It was over.")


def test_without_a_server_it_is_said_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        ControllerTarget(served=True).client(Settings(state_dir=tmp_path))
    assert "--url" in caught.value.remedy


def test_only_policies_that_open_the_package_index_let_packages_be_installed() -> None:
    known = load(policies())
    able = [name for name in known.names() if permits_installing(known.get(name))]
    assert able == ["package-index"]


def test_a_served_controllers_policies_are_understood_in_its_own_words() -> None:
    known = load(policies())
    told = [
        {
            "name": name,
            "is_default": name == "offline",
            "allows": [{"text": each.text} for each in explain(known.get(name))],
        }
        for name in known.names()
    ]
    check_remote("package-index", told)
    for refused in ("", "offline", "datascience"):
        with pytest.raises(NotPermitted) as caught:
            check_remote(refused, told)
        assert "package-index" in caught.value.remedy


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("s-1:out/x", CopyPlace("s-1", "out/x")),
        ("mine:", CopyPlace("mine", "")),
        ("s-1:a:b", CopyPlace("s-1", "a:b")),
        ("./a:b", CopyPlace("", "./a:b")),
        ("dir/a:b", CopyPlace("", "dir/a:b")),
        ("/abs", CopyPlace("", "/abs")),
        ("-", CopyPlace("", "-")),
    ],
)
def test_a_place_is_in_a_session_when_its_id_stands_before_the_colon(
    word: str, place: CopyPlace
) -> None:
    assert CopyPlace.of(word) == place


@pytest.mark.parametrize(
    "words", [("a", "b"), ("s:a", "t:b"), ("s:a", "s:b"), ("a", "s:b", "c"), ("-", "a", "s:b")]
)
def test_copying_is_between_here_and_one_session(words: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest):
        Copying.of(words, force=False)


def test_errors_of_a_server_are_what_they_were_there() -> None:
    told = {"code": "file_error.not_found", "detail": "It is \x1b[6nnot there.", "remedy": "Look."}
    error = of_problem(json.dumps(told).encode(), "")
    assert isinstance(error, FileError)
    assert (error.reason, error.remedy) == ("not_found", "Look.")
    assert "\x1b" not in error.message
    assert isinstance(of_problem({"code": "not_permitted", "detail": "x"}, ""), NotPermitted)
    assert isinstance(of_problem(b"nonsense", "It failed."), InfrastructureError)
