"""`make dist` in a copy of the sources, and what others' programs make of it."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters

from sandbox import __version__
from sandbox.toolsets import TOOLS

from ..support import npm
from ..support.leftovers import left_of
from ..support.served import environment

ROOT = Path(__file__).parents[2]
RECIPE = Path(__file__).parent / "mcpb"
CHECKER = "node_modules/@anthropic-ai/mcpb/dist/cli/cli.js"
MADE = {
    f"sandbox-{__version__}-py3-none-any.whl",
    f"sandbox-{__version__}.mcpb",
    f"sandbox-{__version__}.tar.gz",
    "server.json",
}


def run(*words: str | Path, cwd: Path) -> str:
    """What a program prints; it must end well."""
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is made, twice, of nothing but what is under version control, or will be."""
    copy = tmp_path_factory.mktemp("copy")
    wanted = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = run(*wanted, cwd=ROOT).splitlines()
    run(
        "tar", "cf", copy / "all.tar", *(name for name in names if (ROOT / name).exists()), cwd=ROOT
    )
    run("tar", "xf", "all.tar", cwd=copy)
    (copy / "all.tar").unlink()
    for _ in range(2):
        run(sys.executable, "-m", "scripts.dist", cwd=copy)
    return copy / "dist"


def test_it_makes_all_four_with_what_the_package_needs(dist: Path) -> None:
    assert {path.name for path in dist.iterdir()} == MADE
    with zipfile.ZipFile(dist / f"sandbox-{__version__}-py3-none-any.whl") as wheel:
        assert {
            "sandbox/cli/app.py",
            "sandbox/_data/policies/offline.yaml",
            "sandbox/_data/images/python/Dockerfile",
        } <= {*wheel.namelist()}
    with tarfile.open(dist / f"sandbox-{__version__}.tar.gz") as sdist:
        assert f"sandbox-{__version__}/scripts/bundle/main.py" in sdist.getnames()


def test_the_tool_of_the_format_takes_the_bundle(dist: Path, tmp_path: Path) -> None:
    checker = npm.installed(RECIPE) / CHECKER
    run(npm.NODE, checker, "unpack", dist / f"sandbox-{__version__}.mcpb", "it", cwd=tmp_path)
    told = run(npm.NODE, checker, "validate", "it/manifest.json", cwd=tmp_path)
    assert "passes" in told, told
    (tmp_path / "it/manifest.json").write_text("{}")
    refused = subprocess.run(
        [npm.NODE, checker, "validate", "it/manifest.json"], cwd=tmp_path, capture_output=True
    )
    assert refused.returncode == 1


@pytest.mark.anyio
async def test_the_bundle_starts_a_controller_that_a_client_can_use(
    dist: Path, tmp_path: Path
) -> None:
    run(
        sys.executable,
        "-m",
        "zipfile",
        "-e",
        dist / f"sandbox-{__version__}.mcpb",
        "it",
        cwd=tmp_path,
    )
    program = tmp_path / "sandbox"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sandbox "$@"\n')
    program.chmod(0o755)
    state = tmp_path / "state"
    chosen = {"SANDBOX_BUNDLE_COMMAND": str(program), "SANDBOX_DEFAULT_POLICY": "ci-eval"}
    starts = StdioServerParameters(
        command=sys.executable,
        args=[str(tmp_path / "it/server/main.py")],
        env={**environment(state), **chosen},
        cwd=tmp_path,
    )
    async with Client(starts) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
        told = await client.call_tool("open_session", {})
        assert told.structured_content
        assert told.structured_content["policy"] == "ci-eval"
    assert left_of(state) == []
