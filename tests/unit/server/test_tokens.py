"""Tokens that were given out: what they grant, until when, and what is kept of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.errors import ConfigError, InvalidRequest, NotFound
from sandbox.server.grants import InsufficientScope, SharedNotebook
from sandbox.server.scopes import TOOL_SCOPES
from sandbox.server.tokens import STORE_FILE, USED_EVERY_S, TokenStore

from ...support.clock import Clock

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000_000.0)


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[TokenStore]:
    made = TokenStore(tmp_path, clock=clock)
    yield made
    made.close()


def make(store: TokenStore, principal: str = "alice", lifetime_s: float | None = 60) -> str:
    token, _ = store.create(
        principal,
        ["files:read"],
        application="reader",
        policies=["offline"],
        lifetime_s=lifetime_s,
    )
    return token


async def test_a_token_grants_what_it_was_made_for(store: TokenStore) -> None:
    grant = await store.grant(make(store))
    assert grant is not None
    assert (grant.principal, grant.application) == ("alice", "reader")
    assert (grant.scopes, grant.policies) == (frozenset({"files:read"}), ("offline",))
    assert grant.expires_at == 1_000_060


async def test_a_token_is_refused_when_its_time_is_over(store: TokenStore, clock: Clock) -> None:
    token = make(store)
    clock.now += 59
    assert await store.grant(token)
    clock.now += 1
    assert await store.grant(token) is None


async def test_a_token_revoked_by_another_process_is_refused_at_once(
    store: TokenStore, tmp_path: Path, clock: Clock
) -> None:
    token, other = make(store), make(store)
    assert await store.grant(token)
    commands = TokenStore(tmp_path, clock=clock)
    revoked = commands.revoke(token_id=token.split("_")[1])
    commands.close()
    assert [info.principal for info in revoked] == ["alice"]
    assert await store.grant(token) is None
    assert await store.grant(other)


async def test_all_tokens_of_a_principal_are_revoked_together(store: TokenStore) -> None:
    mine, others = [make(store), make(store)], make(store, "bob")
    store.revoke(principal="alice")
    assert [await store.grant(token) for token in mine] == [None, None]
    assert await store.grant(others)
    assert store.revoke(principal="alice") == []


async def test_nothing_but_the_very_token_is_taken(store: TokenStore) -> None:
    token, other = make(store), make(store)
    head, identity, _ = token.split("_", 2)
    forged = [
        "",
        token[:-1],
        token + "x",
        token.upper(),
        f" {token}",
        f"{head}_{identity}_",
        f"{head}_{identity}_{other.split('_', 2)[2]}",
        f"{head}_{'0' * 12}_{token.split('_', 2)[2]}",
        f"{head}_%_{token.split('_', 2)[2]}",
        token.replace("_", "\0"),
        "sbx_" + "é" * 56,
        "\ud800",
    ]
    assert [await store.grant(text) for text in forged] == [None] * len(forged)


async def test_no_secret_is_kept_and_only_the_owner_may_read_the_file(
    store: TokenStore, tmp_path: Path
) -> None:
    token = make(store)
    await store.grant(token)
    secret = token.split("_", 2)[2].encode()
    files = [path for path in tmp_path.iterdir() if path.name.startswith(STORE_FILE)]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert not any(secret in path.read_bytes() for path in files)
    assert secret.decode() not in repr(store.list())


async def test_the_last_use_is_noted_to_the_minute(store: TokenStore, clock: Clock) -> None:
    token = make(store, lifetime_s=None)
    await store.grant(token)
    first = store.list()[0].last_used_at
    clock.now += USED_EVERY_S - 1
    await store.grant(token)
    assert store.list()[0].last_used_at == first == 1_000_000
    clock.now += 1
    await store.grant(token)
    assert store.list()[0].last_used_at == clock.now


async def test_tokens_of_a_file_that_was_put_aside_count_no_more(
    store: TokenStore, tmp_path: Path
) -> None:
    token = make(store)
    for path in tmp_path.glob(f"{STORE_FILE}*"):
        path.unlink()
    assert await store.grant(token) is None
    assert await store.grant(make(store))


@pytest.mark.parametrize(
    ("scopes", "remedy"),
    [
        (["file:read"], "Did you mean files:read?"),
        (["execute", "everything"], "Known: session, execute"),
        (["EXECUTE"], "Known"),
        ([], "Name some"),
    ],
)
def test_a_scope_that_does_not_exist_is_refused_and_nothing_is_made(
    store: TokenStore, scopes: list[str], remedy: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        store.create("alice", scopes, policies=None, lifetime_s=None)
    assert remedy in refused.value.remedy
    assert store.list() == []


async def test_a_token_keeps_the_toolsets_that_it_offers(store: TokenStore) -> None:
    token, info = store.create(
        "ci", ["execute"], policies=None, toolsets=["code", "read_file", "code"], lifetime_s=None
    )
    grant = await store.grant(token)
    assert grant is not None
    assert info.toolsets == grant.toolsets == ("code", "read_file")
    assert grant.offers("execute_code")
    assert not grant.offers("list_kernels")
    assert grant.may_call("execute_code")
    assert not grant.may_call("read_file"), "it lacks the scope"
    every = await store.grant(make(store))
    assert every is not None
    assert every.toolsets is None
    assert every.offers("list_kernels")


@pytest.mark.parametrize(
    ("toolsets", "told"),
    [
        (["termnals"], "did you mean terminals"),
        ([], "at least one"),
        (["files"], "They need files:read or files:write"),
    ],
)
def test_a_token_that_could_call_nothing_is_refused(
    store: TokenStore, toolsets: list[str], told: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        store.create("ci", ["execute"], policies=None, toolsets=toolsets, lifetime_s=None)
    assert told in f"{refused.value} {refused.value.remedy}"
    assert store.list() == []


@pytest.mark.parametrize(
    ("version", "columns"),
    [(1, ("toolsets", "notebook", "made_with")), (2, ("notebook", "made_with"))],
)
async def test_tokens_of_before_there_were_toolsets_or_shares_are_good_for_everything(
    tmp_path: Path, clock: Clock, version: int, columns: tuple[str, ...]
) -> None:
    before = TokenStore(tmp_path, clock=clock)
    token = make(before)
    before.close()
    db = sqlite3.connect(tmp_path / STORE_FILE)
    for column in columns:
        db.execute(f"ALTER TABLE tokens DROP COLUMN {column}")
    db.execute(f"PRAGMA user_version = {version}")
    db.close()
    after = TokenStore(tmp_path, clock=clock)
    grant = await after.grant(token)
    after.close()
    assert grant is not None
    assert (grant.toolsets, grant.notebook) == (None, None)


async def test_a_token_for_one_notebook_grants_that_and_ends_with_the_one_it_was_made_with(
    store: TokenStore,
) -> None:
    notebook = SharedNotebook("s1", "/workspace/a.ipynb")
    _, parent = store.create("alice", ["notebooks"], policies=None, lifetime_s=None)
    token, _ = store.create(
        "alice",
        ["notebooks"],
        policies=None,
        notebook=notebook,
        made_with=parent.token_id,
        lifetime_s=60,
    )
    grant = await store.grant(token)
    assert grant is not None
    assert grant.notebook == notebook
    grant.require_notebook("notebooks:read", notebook)
    for wrong in (SharedNotebook("s2", notebook.path), SharedNotebook("s1", "/workspace/b.ipynb")):
        assert not grant.may_edit(wrong)
        with pytest.raises(InsufficientScope):
            grant.require_notebook("notebooks:read", wrong)
    assert not any(grant.may_call(tool) for tool in TOOL_SCOPES)
    store.revoke(token_id=parent.token_id)
    assert await store.grant(token) is None


@pytest.mark.parametrize("principal", ["", " ", "a b", "../x", "a\n", "é", "x" * 101, "iss|sub"])
def test_a_principal_that_could_be_taken_for_another_is_refused(
    store: TokenStore, principal: str
) -> None:
    with pytest.raises(InvalidRequest):
        store.create(principal, ["execute"], policies=None, lifetime_s=None)


def test_an_unknown_token_cannot_be_revoked(store: TokenStore) -> None:
    with pytest.raises(NotFound):
        store.revoke(token_id="absent")
    with pytest.raises(NotFound):
        store.revoke(principal="nobody")


@pytest.mark.parametrize("content", [b"not a database" * 100, None])
def test_a_file_of_something_else_is_refused_and_left_as_it_is(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / STORE_FILE
    if content is None:
        foreign = sqlite3.connect(path)
        foreign.execute("CREATE TABLE t (x)")
        foreign.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(ConfigError):
        TokenStore(tmp_path)
    assert path.read_bytes()[100:] == before[100:]
