from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from sandbox.container import mounts as folders
from sandbox.container.mounts import look, search, sources
from sandbox.container.roots import Root
from sandbox.container.sockets import Search
from sandbox.container.spec import Mount
from sandbox.errors import ConfigError, NotPermitted
from sandbox.nofollow import walk
from sandbox.policy import MountRule, Policy

pytestmark = pytest.mark.anyio


def policy(**rule: Any) -> Policy:
    return Policy(name="p", mounts=(MountRule(target="/data/x", **rule),))


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Root, ...]:
    """A readable root and one that sandboxes may write to."""
    (tmp_path / "data" / "iris").mkdir(parents=True)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    return (
        Root("data", str(tmp_path / "data")),
        Root("shared", str(tmp_path / "shared"), writable=True),
    )


def test_a_rule_means_a_folder_below_its_root(roots: tuple[Root, ...]) -> None:
    data = roots[0].path
    assert sources(policy(root="data"), roots) == (Mount(source=data, target="/data/x"),)
    assert sources(policy(root="data", path="iris"), roots)[0].source == f"{data}/iris"
    (mount,) = sources(policy(root="shared", read_only=False), roots)
    assert (mount.source, mount.read_only) == (roots[1].path, False)
    assert sources(Policy(name="p"), roots) == ()


def test_a_root_that_the_operator_does_not_have_is_told_with_what_to_write() -> None:
    with pytest.raises(ConfigError, match=r"mounts\[0\].*'data'") as caught:
        sources(policy(root="data"), ())
    assert "roots" in caught.value.remedy


def test_a_rule_that_wants_more_than_its_root_gives_is_refused(roots: tuple[Root, ...]) -> None:
    with pytest.raises(NotPermitted, match="read-only"):
        sources(policy(root="data", read_only=False), roots)
    with pytest.raises(NotPermitted, match="below the root"):
        sources(policy(root="shared", path="a"), roots)


def test_the_engines_own_directory_is_no_root(roots: tuple[Root, ...], tmp_path: Path) -> None:
    for engine_data in (tmp_path, tmp_path / "data", tmp_path / "data" / "docker"):
        with pytest.raises(ConfigError, match="engine"):
            sources(policy(root="data"), roots, str(engine_data))


async def test_a_folder_is_found_as_the_directory_that_it_is(roots: tuple[Root, ...]) -> None:
    mounts = sources(policy(root="data", path="iris"), roots)
    found = os.stat(mounts[0].source)
    assert await look(mounts, roots) == {"/data/x": (found.st_dev, found.st_ino)}


async def test_a_writable_root_is_on_a_mount_without_devices_and_set_id_programs(
    roots: tuple[Root, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = sources(policy(root="shared", read_only=False), roots)
    flags = [os.ST_NOSUID | os.ST_NODEV, os.ST_NOSUID, os.ST_NODEV, 0]
    for flag in flags:
        monkeypatch.setattr(os, "statvfs", lambda _, flag=flag: SimpleNamespace(f_flag=flag))
        if flag == flags[0]:
            assert await look(shared, roots)  # that everybody may write to it is what it is for
        else:
            with pytest.raises(ConfigError, match="nosuid and nodev"):
                await look(shared, roots)


async def test_a_folder_that_is_not_there_is_told(roots: tuple[Root, ...]) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        await look(sources(policy(root="data", path="absent"), roots), roots)


async def test_a_link_anywhere_in_the_path_is_refused(
    roots: tuple[Root, ...], tmp_path: Path
) -> None:
    (tmp_path / "data" / "link").symlink_to(tmp_path / "data" / "iris")
    (tmp_path / "iris").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "data")
    for mounts, given in (
        (sources(policy(root="data", path="link"), roots), roots),
        (sources(policy(root="r", path="iris"), r := (Root("r", str(tmp_path / "root")),)), r),
    ):
        with pytest.raises(ConfigError, match="symbolic link"):
            await look(mounts, given)


async def test_what_is_not_a_directory_is_refused(roots: tuple[Root, ...], tmp_path: Path) -> None:
    (tmp_path / "data" / "file").write_text("x")
    os.mkfifo(tmp_path / "data" / "fifo")
    for name in ("file", "fifo", "file/x"):
        with pytest.raises(ConfigError, match=r"[nN]ot a directory"):
            await look(sources(policy(root="data", path=name), roots), roots)


@pytest.mark.parametrize("exposed", ["data", "data/iris"])
async def test_a_path_that_a_sandbox_could_change_is_refused(
    roots: tuple[Root, ...], tmp_path: Path, exposed: str
) -> None:
    mounts = sources(policy(root="data", path="iris"), roots)
    place = tmp_path / exposed
    place.chmod(0o777)
    with pytest.raises(ConfigError, match="written to by everybody"):
        await look(mounts, roots)
    place.chmod(0o1777)
    await look(mounts, roots)
    os.chown(place, 250_000, 0)
    with pytest.raises(ConfigError, match="belongs to uid 250000"):
        await look(mounts, roots)
    os.chown(place, 0, 250_000)
    place.chmod(0o775)
    with pytest.raises(ConfigError, match="gid 250000"):
        await look(mounts, roots)


async def test_a_writable_root_under_another_name_is_refused(
    roots: tuple[Root, ...], tmp_path: Path
) -> None:
    twin = (roots[1], Root("twin", str(tmp_path / "shared")))
    (tmp_path / "shared").chmod(0o755)
    mounts = (Mount(source=f"{tmp_path}/shared/.", target="/data/x"),)
    with pytest.raises(ConfigError, match="sandboxes may write"):
        await look(mounts, twin)


async def test_a_file_system_that_hangs_takes_a_bounded_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    asked: list[str] = []

    def hang(folder: str, **_: object) -> Search:
        asked.append(folder)
        answers.wait(60)
        return Search()

    monkeypatch.setattr(folders.sockets, "search", hang)
    monkeypatch.setattr(folders, "SEARCH_S", 0.05)
    monkeypatch.setattr(folders, "MAX_SEARCHES", 3)
    mount = Mount(source=str(tmp_path), target="/data/x")
    try:
        for _ in range(6):
            assert "does not answer" in (await search(mount)).unsearched
        assert len(asked) == 3
    finally:
        answers.set()
    with anyio.fail_after(10):
        while (await search(mount)) != Search():
            await anyio.sleep(0.01)


def test_a_walk_never_leaves_the_directories_that_it_opened(tmp_path: Path) -> None:
    steps = walk(str(tmp_path))
    assert [step.name for step in steps[1:]] == str(tmp_path).strip("/").split("/")
    assert steps[-1].identity == (tmp_path.stat().st_dev, tmp_path.stat().st_ino)
    (tmp_path / "link").symlink_to("/etc")
    assert walk(str(tmp_path / "link" / "passwd"))[-1].name == "link"
