from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox.errors import Conflict, InfrastructureError, InvalidRequest, NotFound, QuotaExceeded
from sandbox.policy.units import MIB
from sandbox.workspaces.holding import Held
from sandbox.workspaces.store import WorkspaceStore

BIG = 64 * MIB


@pytest.fixture
def store(tmp_path: Path) -> WorkspaceStore:
    return WorkspaceStore(tmp_path / "workspaces", quota_bytes=MIB, most=3)


@pytest.fixture
def take(store: WorkspaceStore) -> Iterator[Callable[[str, str, str], Held]]:
    """Take a workspace of the store; all that were taken are closed at the end."""
    taken: list[Held] = []

    def take(principal: str, name: str, session_id: str) -> Held:
        taken.append(store.take(principal, name, session_id))
        return taken[-1]

    yield take
    for held in taken:
        held.close()


Take = Callable[[str, str, str], Held]


def save(held: Held, *pieces: bytes, at: float = 1.0) -> None:
    with held.draft(BIG) as draft:
        for piece in pieces:
            draft.write(piece)
        draft.save(at)


def content(held: Held) -> bytes:
    kept = held.kept()
    return b"".join(held.pieces(kept)) if kept else b""


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.rglob("*") if path.is_file())


def test_what_was_saved_last_comes_back_and_nothing_else_is_left(
    store: WorkspaceStore, take: Take, tmp_path: Path
) -> None:
    held = take("ada", "w", "s-1")
    assert (held.kept(), content(held)) == (None, b"")
    save(held, b"one", b"two")
    save(held, b"three", at=2.0)
    held.release()
    held = take("ada", "w", "s-2")
    assert content(held) == b"three"
    assert [(i.name, i.size_bytes, i.saved_at, i.session_id) for i in store.list("ada")] == [
        ("w", 5, 2.0, "s-2")
    ]
    assert len(files(tmp_path)) == 3
    held.release()


def test_the_same_content_is_not_written_again_but_is_saved_anew(
    store: WorkspaceStore, take: Take
) -> None:
    held = take("ada", "w", "s-1")
    save(held, b"same")
    before = held.kept()
    save(held, b"sa", b"me", at=9.0)
    after = held.kept()
    assert before is not None
    assert after is not None
    assert (after.file, after.saved_at) == (before.file, 9.0)
    assert content(held) == b"same"


def test_a_save_that_fails_leaves_the_last_one_and_no_trace(
    store: WorkspaceStore, take: Take, tmp_path: Path
) -> None:
    held = take("ada", "w", "s-1")
    save(held, b"kept")
    there = files(tmp_path)
    with held.draft(BIG) as draft:
        draft.write(b"half")
    with pytest.raises(QuotaExceeded, match="more than 10"), held.draft(10) as draft:
        draft.write(b"x" * 11)
    assert (content(held), files(tmp_path)) == (b"kept", there)


def test_a_killed_controllers_half_written_archive_is_removed(
    store: WorkspaceStore, take: Take, tmp_path: Path
) -> None:
    held = take("ada", "w", "s-1")
    save(held, b"kept")
    there = files(tmp_path)
    folder = next(tmp_path.rglob("current.json")).parent
    (folder / f"{'0' * 32}.tar").write_bytes(b"half")
    held.close()
    held = take("ada", "w", "s-1")
    assert (content(held), files(tmp_path)) == (b"kept", there)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "A", "-a", "a" * 65, "a\n", "ä"])
def test_a_name_is_a_single_plain_word(
    store: WorkspaceStore, take: Take, name: str, tmp_path: Path
) -> None:
    for ask in (store.holder, store.kept, store.delete):
        with pytest.raises(InvalidRequest):
            ask("ada", name)
    with pytest.raises(InvalidRequest):
        take("ada", name, "s-1")
    assert files(tmp_path) == []


def test_one_session_has_it_until_it_lets_go(
    store: WorkspaceStore, take: Take, tmp_path: Path
) -> None:
    held = take("ada", "w", "s-1")
    other = WorkspaceStore(tmp_path / "workspaces", quota_bytes=MIB, most=3)
    for each in (store, other):
        with pytest.raises(Conflict, match="s-1"):
            each.take("ada", "w", "s-2")
        with pytest.raises(Conflict, match="s-1"):
            each.delete("ada", "w")
        with pytest.raises(Conflict, match="s-1"):
            each.forget("ada", "w", "s-1")
    held.release()
    held.release()
    assert files(tmp_path) == []  # nothing was saved
    other.take("ada", "w", "s-2").release()


def test_a_session_that_outlives_its_controller_keeps_it(store: WorkspaceStore, take: Take) -> None:
    take("ada", "w", "s-1").close()
    assert store.holder("ada", "w") == "s-1"
    with pytest.raises(Conflict, match="s-1"):
        take("ada", "w", "s-2")
    take("ada", "w", "s-1").close()
    store.forget("ada", "w", "s-0")
    with pytest.raises(Conflict, match="s-1"):
        take("ada", "w", "s-2")
    store.forget("ada", "w", "s-1")
    take("ada", "w", "s-2").release()


def test_principals_do_not_see_each_others(store: WorkspaceStore, take: Take) -> None:
    held = take("ada", "w", "s-1")
    save(held, b"ada's")
    assert store.list("grace") == []
    with pytest.raises(NotFound):
        store.delete("grace", "w")
    assert content(take("grace", "w", "s-2")) == b""
    assert content(held) == b"ada's"


def test_a_deleted_one_is_gone_and_begins_empty(
    store: WorkspaceStore, take: Take, tmp_path: Path
) -> None:
    held = take("ada", "w", "s-1")
    save(held, b"x")
    held.release()
    store.delete("ada", "w")
    assert (files(tmp_path), store.list("ada")) == ([], [])
    with pytest.raises(NotFound):
        store.delete("ada", "w")
    assert content(take("ada", "w", "s-2")) == b""


def test_a_principal_has_a_number_and_a_size_and_others_have_their_own(
    store: WorkspaceStore, take: Take
) -> None:
    held = [take("ada", f"w{n}", f"s-{n}") for n in range(3)]
    with pytest.raises(QuotaExceeded, match="3 workspaces"):
        take("ada", "w3", "s-3")
    save(held[0], b"x" * (MIB // 2))
    save(held[1], b"x" * (MIB // 2))
    with pytest.raises(QuotaExceeded, match="together"):
        save(held[2], b"x")
    save(held[1], b"y" * (MIB // 2))  # in the place of what is there
    with pytest.raises(QuotaExceeded, match="together"):
        save(held[1], b"y" * (MIB // 2 + 1))
    save(take("grace", "w", "s-9"), b"x" * MIB)


@pytest.mark.parametrize("damage", ["cut", "changed", "longer", "gone", "index"])
def test_what_is_damaged_is_told_and_stays(
    store: WorkspaceStore, take: Take, tmp_path: Path, damage: str
) -> None:
    held = take("ada", "w", "s-1")
    save(held, b"0123456789" * 1000)
    archive = next(tmp_path.rglob("*.tar"))
    data = archive.read_bytes()
    match damage:
        case "cut":
            archive.write_bytes(data[:-1])
        case "changed":
            archive.write_bytes(b"x" + data[1:])
        case "longer":
            archive.write_bytes(data + b"x")
        case "gone":
            archive.unlink()
        case _:
            next(tmp_path.rglob("current.json")).write_text('{"file": "../../x"}')
    with pytest.raises(InfrastructureError, match="damaged"):
        content(held)
    held.release()
    again = take("ada", "w", "s-2")
    with pytest.raises(InfrastructureError, match="damaged"):
        content(again)
    assert archive.exists() == (damage != "gone")


def test_what_is_kept_is_the_controllers_own(
    store: WorkspaceStore, take: Take, tmp_path: Path
) -> None:
    save(take("ada", "w", "s-1"), b"x")
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
