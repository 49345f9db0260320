"""What is advised about a module, or a program, that is not there."""

from __future__ import annotations

import pytest

from sandbox.commands.models import CommandResult
from sandbox.container.manifests import manifest_of
from sandbox.kernels.models import ExecutionError, ExecutionResult
from sandbox.policy import load
from sandbox.server.missing import (
    PACKAGES,
    advice_for,
    advice_for_command,
    advised,
    advised_command,
    images_of,
)
from sandbox.sessions.models import Caller

POLICIES = load()
IMAGES = images_of(POLICIES, Caller("somebody"))


def missing(module: str) -> ExecutionError:
    return ExecutionError(
        name="ModuleNotFoundError", value=f"No module named {module!r}", traceback=""
    )


def advice(module: str, policy: str = "offline") -> str:
    return advice_for(missing(module), POLICIES.get(policy), IMAGES)


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("cv2", "opencv-python-headless"),
        ("sklearn.linear_model", "scikit-learn"),
        ("yaml", "PyYAML"),
        ("bs4", "beautifulsoup4"),
        ("humanize", "humanize"),
        ("more_itertools", "more-itertools"),
    ],
)
def test_a_session_that_can_install_is_told_the_package_of_a_module(
    module: str, package: str
) -> None:
    assert f"`%pip install {package}`" in advice(module, "package-index")


def test_a_session_that_cannot_is_told_which_policy_has_it() -> None:
    told = advice("pandas")
    assert "datascience and readonly-data" in told
    assert "open_session(policy='datascience')" in told


def test_what_no_policy_has_can_be_installed_elsewhere_or_be_added() -> None:
    told = advice("humanize")
    assert "open_session(policy='package-index')" in told
    assert "`image.pip`" in told


def test_a_policy_that_the_caller_may_not_name_is_not_told() -> None:
    images = images_of(POLICIES, Caller("somebody", policies=("offline",)))
    assert set(images) == {"offline"}
    told = advice_for(missing("pandas"), POLICIES.get("offline"), images)
    assert "datascience" not in told
    assert "package-index" not in told
    assert "add pandas to `image.pip`" in told


@pytest.mark.parametrize("module", ["_tkinter", "distutils", "sys.x"])
def test_nothing_is_advised_about_the_standard_library(module: str) -> None:
    assert advice(module, "package-index") == ""


def test_nothing_is_advised_about_a_part_of_what_is_installed() -> None:
    assert advice("pandas.no_such_part", "datascience") == ""


@pytest.mark.parametrize(
    "value",
    [
        "",
        "No module named 'a; rm -rf x'",
        "No module named '../x'",
        "No module named '" + "a" * 65 + "'",
        "No module named 'x'\n`y`"[:17] + "`",
    ],
)
def test_what_is_no_name_of_a_module_is_not_repeated(value: str) -> None:
    error = ExecutionError(name="ModuleNotFoundError", value=value, traceback="")
    assert advice_for(error, POLICIES.get("package-index"), IMAGES) == ""


def test_another_error_is_no_missing_module() -> None:
    error = ExecutionError(name="ValueError", value="No module named 'pandas'", traceback="")
    assert advice_for(error, POLICIES.get("offline"), IMAGES) == ""
    assert advice_for(None, POLICIES.get("offline"), IMAGES) == ""


def test_the_advice_is_the_reason_of_a_result_that_has_none() -> None:
    result = ExecutionResult(
        execution_id="e",
        session_id="s",
        kernel_id="k",
        status="error",
        state="kept",
        error=missing("pandas"),
    )
    told = advised(result, POLICIES.get("offline"), POLICIES, Caller("somebody"))
    assert told.reason is not None
    assert "datascience" in told.reason
    again = advised(told, POLICIES.get("package-index"), POLICIES, Caller("somebody"))
    assert again is told


def ran(stderr: str, exit_code: int = 127) -> CommandResult:
    return CommandResult(
        command_id="c", session_id="s", status="exited", exit_code=exit_code, stderr=stderr
    )


@pytest.mark.parametrize(
    "stderr", ["bash: line 1: figlet: command not found\n", "/bin/sh: 1: figlet: not found\n"]
)
def test_a_program_that_is_not_there_can_be_added(stderr: str) -> None:
    told = advice_for_command(ran(stderr), POLICIES.get("offline"))
    assert "'figlet'" in told
    assert "`image.apt`" in told
    assert "pip" not in told
    assert "`pip install figlet`" in advice_for_command(ran(stderr), POLICIES.get("package-index"))
    assert advised_command(ran(stderr), POLICIES.get("offline")).reason == told


@pytest.mark.parametrize(
    ("stderr", "exit_code"),
    [("bash: line 1: figlet: command not found\n", 1), ("$(x): command not found\n", 127)],
)
def test_nothing_is_advised_about_what_is_no_program(stderr: str, exit_code: int) -> None:
    assert advice_for_command(ran(stderr, exit_code), POLICIES.get("offline")) == ""


def test_a_module_that_stands_in_the_table_is_found_in_the_image_that_has_it() -> None:
    datascience = manifest_of(POLICIES.get("datascience").image)
    assert {m for m, package in PACKAGES.items() if datascience.has(package)} >= {
        *("sklearn", "PIL", "bs4", "docx", "dateutil"),
    }
