from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox import resources
from sandbox.supervisor import account
from sandbox.supervisor.account import write_account
from sandbox.supervisor.main import STATE_DIR


def test_the_uid_and_the_gid_have_a_line_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    monkeypatch.setattr(os, "getgid", lambda: 54322)
    write_account(str(tmp_path / "state"), "/workspace")
    folder = tmp_path / "state" / account.FOLDER
    assert (folder / "passwd").read_text() == (
        "sandbox:x:54321:54322:sandbox:/workspace:/bin/bash\n"
    )
    assert (folder / "group").read_text() == "sandbox:x:54322:\n"


def test_a_supervisor_that_starts_again_writes_them_again(tmp_path: Path) -> None:
    write_account(str(tmp_path), "/workspace/of/a/longer/name")
    write_account(str(tmp_path), "/home")
    lines = (tmp_path / account.FOLDER / "passwd").read_text().splitlines()
    assert [line.split(":")[5] for line in lines] == ["/home"]


def test_the_images_look_for_them_where_the_supervisor_writes_them() -> None:
    recipe = (resources.images() / "python" / "Dockerfile").read_text()
    assert f"ln -s {STATE_DIR}/{account.FOLDER} /var/lib/extrausers" in recipe
