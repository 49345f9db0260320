"""Kernelspecs of ours: what they say, where they are written, and what is left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import Conflict, InvalidRequest, NotFound
from sandbox.jupyter import kernelspecs
from sandbox.jupyter.kernelconfig import KernelConfig

OFFLINE = KernelConfig.of({"policy": "offline"})


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Jupyter's own folders are empty ones."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "user"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")  # that of the tests has kernelspecs
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "first"))
    return tmp_path


def foreign(folder: Path, name: str = "python3") -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "kernel.json").write_text(json.dumps({"argv": ["python"], "metadata": {}}))
    return folder / name


def test_a_kernelspec_says_its_policy_and_has_no_command_that_runs_a_notebook() -> None:
    folder = kernelspecs.install(OFFLINE, kernelspecs.folder_for(), env={"SANDBOX_ENGINE": "x"})
    spec = json.loads((folder / "kernel.json").read_text())
    wanted = {"provisioner_name": "sandbox", "config": {"policy": "offline"}}
    assert spec["metadata"]["kernel_provisioner"] == wanted
    assert spec["argv"][1:] == ["-P", "-m", "sandbox.jupyter.bridge"]
    assert spec["env"] == {"SANDBOX_ENGINE": "x"}
    assert spec["display_name"] == "Python 3 (sandbox: offline)"
    (found,) = kernelspecs.installed()
    assert (found.name, found.folder, found.config) == ("sandbox-offline", folder, OFFLINE)
    assert kernelspecs.remove("sandbox-offline") == folder
    assert kernelspecs.installed() == []


def test_it_goes_where_it_is_wanted(places: Path) -> None:
    assert kernelspecs.folder_for(user=True) == places / "user/kernels"
    prefix = str(places / "env")
    assert kernelspecs.folder_for(prefix=prefix) == places / "env/share/jupyter/kernels"
    with pytest.raises(InvalidRequest):
        kernelspecs.folder_for(user=True, sys_prefix=True)


def test_one_that_is_not_ours_stays_unless_it_is_to_be_replaced() -> None:
    folder = foreign(kernelspecs.folder_for())
    before = (folder / "kernel.json").read_bytes()
    with pytest.raises(Conflict, match="no kernelspec of ours"):
        kernelspecs.install(OFFLINE, kernelspecs.folder_for(), "python3")
    with pytest.raises(NotFound):
        kernelspecs.remove("python3")
    assert (folder / "kernel.json").read_bytes() == before
    kernelspecs.install(OFFLINE, kernelspecs.folder_for(), "python3", force=True)
    assert kernelspecs.installed()[0].name == "python3"


def test_one_that_jupyter_would_not_find_is_not_written(places: Path) -> None:
    foreign(places / "first/kernels")
    with pytest.raises(Conflict, match="comes first"):
        kernelspecs.install(OFFLINE, kernelspecs.folder_for(), "python3", force=True)
    assert not (places / "user/kernels/python3").exists()


@pytest.mark.parametrize("name", ["..", "a/b", "a b", "ä", "x" * 101])
def test_a_name_that_jupyter_would_not_take_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        kernelspecs.install(OFFLINE, kernelspecs.folder_for(), name)


@pytest.mark.parametrize(
    "config",
    [
        {"polcy": "offline"},
        {"policy": None},
        {"policy": ["offline"]},
        {"kernel": ""},
        {"token_file": "/t"},
        {"with": "data.csv"},
        {"with": ["data.csv"]},
        {"with": ["/x"] * 101},
        {"with": ["/" + "x" * 1000] * 100},
        {"policy": "x" * 5000},
    ],
)
def test_what_makes_no_sense_in_a_kernelspec_is_no_default(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        KernelConfig.of(config)


def test_a_config_is_written_as_it_was_read() -> None:
    said = {
        "policy": "p",
        "kernel": "bash",
        "url": "http://h",
        "token_file": "/t",
        "with": ["/a", "/b"],
    }
    assert KernelConfig.of(said).data() == said
