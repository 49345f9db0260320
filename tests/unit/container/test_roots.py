from __future__ import annotations

from pathlib import Path

import pytest

import sandbox
from sandbox import config
from sandbox.container.roots import Root, parse_roots
from sandbox.errors import ConfigError


def test_roots_come_from_a_mapping_or_from_one_line() -> None:
    expected = (Root("datasets", "/srv/datasets"), Root("scratch", "/srv/scratch"))
    assert parse_roots({"datasets": "/srv/datasets/", "scratch": "/srv/scratch"}) == expected
    assert parse_roots("datasets=/srv/datasets, scratch=/srv/scratch") == expected
    assert parse_roots({"scratch": {"path": "/srv/s", "writable": True}})[0].writable
    assert parse_roots("") == parse_roots({}) == ()


@pytest.mark.parametrize(
    "path",
    [
        *("/", "//", "/proc", "/proc/1/root", "/sys/fs", "/dev/shm", "/etc", "/etc/ssl", "/run"),
        *("/var/run/docker.sock", "/var", "/var/lib", "/var/lib/docker/volumes", "/boot", "/root"),
        *("/var/lib/containerd", "/usr", "/usr/lib/x", "/lib64", "/bin", "srv/data", "~/data", ""),
        *("/srv/../etc", "/srv/./x", "//etc", "/srv/new\nline", "/srv/\0", f"/{'x' * 2000}"),
    ],
)
def test_a_path_that_no_sandbox_may_see_is_no_root(path: str) -> None:
    with pytest.raises(ValueError, match=r"data: \S"):
        parse_roots({"data": path})


@pytest.mark.parametrize(
    "given",
    [
        *({"": "/srv/x"}, {"A": "/srv/x"}, {"../x": "/srv/x"}, {"x" * 65: "/srv/x"}),
        *({"x": 3}, {"x": None}, {"x": {"writable": True}}, {"x": {"path": "/srv/x", "mode": 1}}),
        *({"x": {"path": "/srv/x", "writable": "yes"}}, ["/srv/x"], "/srv/x", 7),
        *("x=/srv/a,x=/srv/b", {f"r{n}": f"/srv/{n}" for n in range(65)}),
    ],
)
def test_what_is_no_mapping_of_names_to_folders_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_roots(given)


def test_what_is_written_to_is_apart_from_what_is_read() -> None:
    for writable, other in (("/srv/a", "/srv/a/b"), ("/srv/a/b", "/srv/a"), ("/srv/a", "/srv/a")):
        with pytest.raises(ValueError, match="apart"):
            parse_roots({"x": {"path": writable, "writable": True}, "y": other})
    assert len(parse_roots({"x": "/srv/a", "y": "/srv/a/b"})) == 2


def test_the_controllers_own_files_are_no_root_and_the_file_is_named(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    file = tmp_path / "config" / "sandbox.yaml"
    file.parent.mkdir()
    package = Path(sandbox.__file__).parent
    for path in (tmp_path / "state", tmp_path / "state/sandbox/x", file.parent, package, "/etc"):
        file.write_text(f"roots: {{mine: {path}}}")
        with pytest.raises(ConfigError, match=r"roots: mine: \S") as caught:
            config.load(file, env=env)
        assert str(file) in caught.value.message
    with pytest.raises(ConfigError, match="SANDBOX_ROOTS: roots: mine"):
        config.load(env={**env, "SANDBOX_ROOTS": "mine=/etc"})


def test_roots_are_shown_with_where_they_come_from(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "SANDBOX_ROOTS": "datasets=/srv/datasets"}
    (row,) = (row for row in config.load(env=env).explain() if row.key == "roots")
    assert (row.value, row.origin) == ("datasets=/srv/datasets", "SANDBOX_ROOTS")
