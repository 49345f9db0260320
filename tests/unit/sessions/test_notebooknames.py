"""The names of a session's notebooks: each caller's own, bounded, passed on with the session."""

from __future__ import annotations

import secrets

import pytest

from sandbox.errors import Conflict, NotFound, QuotaExceeded
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller, passing_key
from sandbox.sessions.notebooknames import MAX_CALLERS, MAX_NAMES, Named, NotebookNames


def test_the_notebook_used_last_is_the_current_one_of_who_used_it() -> None:
    names = NotebookNames()
    names.use("a", "one", "/workspace/1.ipynb")
    names.use("a", "two", "/workspace/2.ipynb")
    names.use("b", "one", "/workspace/3.ipynb")
    assert names.find("a") == Named("two", "/workspace/2.ipynb", is_current=True)
    assert names.find("a", "one") == Named("one", "/workspace/1.ipynb", is_current=False)
    assert names.find("b").path == "/workspace/3.ipynb"
    names.use("a", "one", "/workspace/1.ipynb")
    assert names.find("a").name == "one"
    assert names.latest("a") > names.latest("b") > names.latest("a", "two") > 0
    assert names.latest("c") == names.latest("a", "absent") == 0


def test_who_has_no_such_name_is_told_which_it_has_and_never_anybody_elses() -> None:
    names = NotebookNames()
    names.use("a", "mine", "/workspace/1.ipynb")
    names.use("b", "secret", "/workspace/2.ipynb")
    with pytest.raises(NotFound) as refused:
        names.find("a", "secret")
    assert "use_notebook" in refused.value.remedy
    assert "'mine'" in refused.value.remedy
    assert "2.ipynb" not in str(refused.value)
    with pytest.raises(NotFound, match="no notebook yet"):
        names.find("c")


def test_a_name_stands_for_one_notebook_until_it_is_given_up() -> None:
    names = NotebookNames()
    names.use("a", "one", "/workspace/1.ipynb")
    with pytest.raises(Conflict, match=r"/workspace/1\.ipynb"):
        names.use("a", "one", "/workspace/2.ipynb")
    assert names.find("a").path == "/workspace/1.ipynb"
    names.use("a", "two", "/workspace/2.ipynb")
    assert names.release("a", "two") == "one"
    assert names.release("a", "one") == ""
    assert not names.is_used("/workspace/1.ipynb")
    with pytest.raises(NotFound):
        names.release("a", "one")


def test_names_and_callers_are_bounded() -> None:
    names = NotebookNames()
    for number in range(MAX_NAMES):
        names.use("a", f"n{number}", f"/workspace/{number}.ipynb")
    with pytest.raises(QuotaExceeded):
        names.use("a", "more", "/workspace/more.ipynb")
    names.use("a", "n0", "/workspace/0.ipynb")
    for number in range(MAX_CALLERS - 1):
        names.use(f"c{number}", "n", "/workspace/n.ipynb")
    assert names.of("a"), "still there"
    names.find("a")  # and used just now
    names.use("one more", "n", "/workspace/n.ipynb")
    assert names.of("a")
    assert not names.of("c0"), "who did nothing for longest gives way"


def test_what_goes_on_has_the_names_of_before_beside_its_own() -> None:
    names = NotebookNames()
    names.use("old", "kept", "/workspace/1.ipynb")
    names.use("old", "same", "/workspace/2.ipynb")
    names.use("new", "same", "/workspace/3.ipynb")
    names.pass_on("old", "new")
    assert names.of("old") == []
    assert names.find("new", "kept").path == "/workspace/1.ipynb"
    assert names.find("new").path == "/workspace/3.ipynb"
    names.pass_on("absent", "new")
    names.pass_on("new", "third")
    assert names.find("third").name == "same"
    assert names.latest("third", "kept") > 0


@pytest.mark.anyio
async def test_a_session_that_is_taken_over_takes_the_names_along(manager: SessionManager) -> None:
    def begin() -> tuple[Caller, object]:
        key = passing_key("t1", secrets.token_hex(8))
        return Caller("alice", key), manager.conversations.begin(key)

    first, conversation = begin()
    session = await manager.get(first)
    session.notebook_names.use(first.default_key, "n", "/workspace/n.ipynb")
    manager.conversations.end(conversation)
    second, _ = begin()
    assert (await manager.get(second)) is session
    assert session.notebook_names.find(second.default_key).name == "n"
    with pytest.raises(NotFound):
        session.notebook_names.find(first.default_key)
