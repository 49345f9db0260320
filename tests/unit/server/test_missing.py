"""What is advised about a module, or a program, that is not there."""

from __future__ import annotations

import pytest

from sandbox.commands.models import CommandResult
from sandbox.container.manifests import manifest_of
from sandbox.kernels.models import ExecutionError
from sandbox.policy import load
from sandbox.server.missing import (
    PACKAGES,
    advice_for,
    advice_for_command,
    images_of,
    is_missing,
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


@pytest.mark.parametrize(
    ("module", "meant"),
    [
        ("nunpy", "numpy"),
        ("panda", "pandas"),
        ("sklear", "sklearn"),
        ("beautifulsoup", "bs4"),
        ("xqzw", ""),
    ],
)
def test_a_name_that_is_nearly_one_is_told_with_what_is_known_of_that(
    module: str, meant: str
) -> None:
    told = advice(module)
    assert (f"did you mean {meant!r}?" in told) == bool(meant)
    assert ("open_session(policy='datascience')" in told) == bool(meant)


def test_a_name_that_is_nearly_one_of_the_standard_library_needs_no_more() -> None:
    assert advice("jsn") == "'jsn' is not installed; did you mean 'json'?"


@pytest.mark.parametrize("dependency", ["tabulate", "openpyxl.styles"])
def test_what_a_package_can_do_without_is_missing_too(dependency: str) -> None:
    value = f"Missing optional dependency '{dependency}'.  Use pip or conda to install it."
    error = ExecutionError(name="ImportError", value=value, traceback="")
    assert is_missing(error)
    told = advice_for(error, POLICIES.get("offline"), IMAGES)
    assert "open_session(policy='datascience')" in told


def test_other_errors_of_imports_are_no_missing_module() -> None:
    error = ExecutionError(
        name="ImportError", value="cannot import name 'x' from 'json'", traceback=""
    )
    assert not is_missing(error)


def ran(stderr: str, exit_code: int = 127) -> CommandResult:
    return CommandResult(
        command_id="c", session_id="s", status="exited", exit_code=exit_code, stderr=stderr
    )


def command_advice(stderr: str, exit_code: int = 127, policy: str = "offline") -> str:
    return advice_for_command(ran(stderr, exit_code), POLICIES.get(policy), lambda: IMAGES)


@pytest.mark.parametrize(
    "stderr", ["bash: line 1: figlet: command not found\n", "/bin/sh: 1: figlet: not found\n"]
)
def test_a_program_that_is_not_there_can_be_added(stderr: str) -> None:
    told = command_advice(stderr)
    assert "'figlet'" in told
    assert "`image.apt`" in told
    assert "pip" not in told
    assert "`pip install figlet`" in command_advice(stderr, policy="package-index")


@pytest.mark.parametrize(
    ("stderr", "exit_code"),
    [
        ("bash: line 1: figlet: command not found\n", 1),
        ("$(x): command not found\n", 127),
        ("ModuleNotFoundError: No module named 'pandas'\n", 0),
        ("ModuleNotFoundError: No module named 'pandas'\ngone on without it\n", 1),
    ],
)
def test_nothing_is_advised_about_what_is_not_missing(stderr: str, exit_code: int) -> None:
    assert command_advice(stderr, exit_code) == ""


def test_a_program_that_cannot_import_a_module_is_told_the_same() -> None:
    stderr = "Traceback (most recent call last):\nModuleNotFoundError: No module named 'humanize'\n"
    assert "`pip install humanize`" in command_advice(stderr, 1, "package-index")
    assert "open_session(policy='package-index')" in command_advice(stderr, 1)


def test_a_module_that_stands_in_the_table_is_found_in_the_image_that_has_it() -> None:
    datascience = manifest_of(POLICIES.get("datascience").image)
    assert {m for m, package in PACKAGES.items() if datascience.has(package)} >= {
        *("sklearn", "PIL", "bs4", "docx", "dateutil"),
    }
