"""Recipes, digests and names; no engine is asked."""

from __future__ import annotations

import ast
import io
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import resources
from sandbox.container import images
from sandbox.errors import ConfigError, NotFound
from sandbox.policy import ImagePolicy


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the image recipes that a test may change."""
    copy = tmp_path / "images"
    shutil.copytree(resources.images(), copy)
    monkeypatch.setattr(resources, "images", lambda: copy)
    images.recipes.cache_clear()
    yield copy
    images.recipes.cache_clear()


def references() -> dict[str, str]:
    images.recipes.cache_clear()
    return {name: recipe.reference for name, recipe in images.recipes().items()}


def changed(before: dict[str, str]) -> set[str]:
    after = references()
    return {name for name in before if before[name] != after[name]}


def test_a_sandbox_image_stands_on_its_dependencies_and_those_on_the_base() -> None:
    chain = [recipe.name for recipe in images.chain("datascience")]
    assert chain == ["base", "python-deps", "datascience-deps", "datascience"]


def test_a_reference_is_the_repository_and_twelve_digits_of_the_digest() -> None:
    recipe = images.recipes()["python"]
    assert images.reference("python") == f"sandbox/python:{recipe.digest[:12]}"


def test_the_controller_and_the_sandbox_images_can_be_named() -> None:
    assert {"python", "datascience", "controller"} <= set(images.names())
    assert not {"supervisor", "package", "additions", "base"} & set(images.names())


@pytest.mark.parametrize("name", ["nothing", "", "../python", "python:latest"])
def test_an_unknown_name_is_not_found_and_the_known_ones_are_told(name: str) -> None:
    with pytest.raises(NotFound) as raised:
        images.reference(name)
    assert "datascience" in raised.value.remedy


def test_a_new_lock_changes_its_image_and_those_above_only(folder: Path) -> None:
    before = references()
    with (folder / "datascience" / "requirements.txt").open("a") as lock:
        lock.write("# another\n")
    assert changed(before) == {"datascience-deps", "datascience", "controller"}


def test_a_new_base_changes_every_image(folder: Path) -> None:
    before = references()
    with (folder / "base" / "bootstrap").open("a") as script:
        script.write("# another\n")
    assert changed(before) == set(before)


def test_a_new_supervisor_changes_no_image_of_dependencies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = references()
    copy = tmp_path / "sandbox"
    shutil.copytree(resources.package(), copy)
    with (copy / "supervisor" / "bridge.py").open("a") as source:
        source.write("# another\n")
    monkeypatch.setattr(resources, "package", lambda: copy)
    assert changed(before) == {"python", "datascience", "controller"}
    images.recipes.cache_clear()


def test_a_new_controller_changes_no_sandbox_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = references()
    copy = tmp_path / "sandbox"
    shutil.copytree(resources.package(), copy)
    with (copy / "spec.py").open("a") as source:
        source.write("# another\n")
    monkeypatch.setattr(resources, "package", lambda: copy)
    assert changed(before) == {"controller"}
    images.recipes.cache_clear()


@pytest.mark.parametrize("litter", ["__pycache__/x.pyc", ".DS_Store"])
def test_files_that_are_no_part_of_a_build_change_nothing(folder: Path, litter: str) -> None:
    before = references()
    path = folder / "python" / litter
    path.parent.mkdir(exist_ok=True)
    path.write_text("litter")
    assert changed(before) == set()


def test_what_a_lock_was_made_from_is_in_the_controllers_image_alone(folder: Path) -> None:
    before = references()
    (folder / "python" / "requirements.in").write_text("another\n")
    assert changed(before) == {"controller"}


def test_what_a_policy_adds_stands_below_the_supervisor() -> None:
    image = ImagePolicy(base="datascience", pip=("humanize",)).under(b"a lock")
    chain = images.chain(image, b"a lock")
    assert [recipe.name for recipe in chain[2:]] == [
        "datascience-deps",
        "datascience-additions-deps",
        "datascience-additions",
    ]
    assert chain[-2].files["lock.txt"] == b"a lock"
    assert chain[-1].files == images.recipes()["datascience"].files
    assert images.reference(image) == chain[-1].reference


def test_an_image_to_which_nothing_is_added_is_the_shipped_one() -> None:
    assert images.reference(ImagePolicy()) == images.reference("python")


def test_lists_lock_and_base_each_change_the_name_of_what_is_added() -> None:
    one = ImagePolicy(pip=("humanize",))
    made = [
        one,
        one.under(b"a"),
        one.under(b"b"),
        ImagePolicy(pip=("humanize>1",)).under(b"a"),
        ImagePolicy(pip=("humanize",), apt=("figlet",)).under(b"a"),
        ImagePolicy(base="datascience", pip=("humanize",)).under(b"a"),
    ]
    assert len({images.reference(image) for image in made}) == len(made)
    assert images.reference(one.under(b"a")) == images.reference(made[1])


def test_a_new_base_or_supervisor_changes_the_name_of_what_is_added(folder: Path) -> None:
    image = ImagePolicy(pip=("humanize",)).under(b"a")
    seen = {images.reference(image)}
    for place in ("python/requirements.txt", "supervisor/Dockerfile", "additions/add.py"):
        with (folder / place).open("a") as opened:
            opened.write("# another\n")
        images.recipes.cache_clear()
        seen.add(images.reference(image))
    assert len(seen) == 4


def test_an_image_of_ones_own_is_built_like_the_others(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "Dockerfile").write_text("ARG BASE=sandbox/datascience-deps\nFROM ${BASE}\n")
    images.recipes.cache_clear()
    names = [recipe.name for recipe in images.chain("mine")]
    assert names == ["base", "python-deps", "datascience-deps", "mine-deps", "mine"]


@pytest.mark.parametrize(
    ("dockerfile", "message"),
    [
        ("FROM scratch\n", "ARG BASE"),
        ("ARG BASE=sandbox/unknown\nFROM ${BASE}\n", "parent of: mine"),
        ("ARG BASE=sandbox/mine-deps\nFROM ${BASE}\n", "parent of: mine"),
    ],
)
def test_a_recipe_without_a_known_parent_is_refused(
    folder: Path, dockerfile: str, message: str
) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "Dockerfile").write_text(dockerfile)
    images.recipes.cache_clear()
    with pytest.raises(ConfigError, match=message):
        images.recipes()


def test_the_supervisor_brings_its_modules_and_nothing_of_the_controllers() -> None:
    files = images.recipes()["python"].files
    assert {"Dockerfile", "opt/__main__.py", "opt/bridge.py"} <= set(files)
    assert {"opt/sandbox/__init__.py", "opt/sandbox/link/wire.py"} <= set(files)
    folders = {path.split("/")[2] for path in files if path.count("/") > 2}
    assert folders == {"link", "supervisor"}


THERE = ("sandbox", "zmq", "ipykernel", "IPython", "jupyter_client", "tornado", "traitlets")
"""What every image brings, beside the standard library."""


def test_what_is_in_an_image_imports_only_what_is_there() -> None:
    roots: set[str] = set()
    for path, source in images.recipes()["python"].files.items():
        if path.endswith(".py"):
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Import):
                    roots |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    roots.add(node.module.split(".")[0])
    assert roots - sys.stdlib_module_names <= set(THERE)


def test_a_context_is_the_same_bytes_whenever_it_is_made() -> None:
    recipe = images.recipes()["python"]
    assert recipe.context({"ca.pem": b"x"}) == recipe.context({"ca.pem": b"x"})


def test_what_the_building_machine_lends_is_in_the_context_and_not_in_the_digest() -> None:
    recipe = images.recipes()["python-deps"]
    with tarfile.open(fileobj=io.BytesIO(recipe.context({"ca.pem": b"lent"}))) as tar:
        member = tar.extractfile("build/ca.pem")
        assert member is not None
        assert member.read() == b"lent"
        assert tar.getmember("build").isdir()
    assert "build/ca.pem" not in recipe.files


def test_a_context_without_anything_lent_still_has_the_folder_for_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(images.recipes()["python-deps"].context({}))) as tar:
        assert tar.getmember("build").isdir()


@pytest.mark.parametrize("name", ["python", "datascience"])
def test_every_locked_package_has_a_hash_and_no_address(name: str) -> None:
    lock = (resources.images() / name / "requirements.txt").read_text()
    lines = lock.replace("\\\n", " ").splitlines()
    requirements = [line for line in lines if line and not line.startswith("#")]
    assert requirements
    for entry in requirements:
        assert "==" in entry
        assert "--hash=sha256:" in entry
        assert "://" not in entry


def test_the_two_locks_agree_on_what_they_share() -> None:
    def versions(name: str) -> dict[str, str]:
        lock = (resources.images() / name / "requirements.txt").read_text()
        pins = (line.split()[0] for line in lock.splitlines() if "==" in line)
        return dict(pin.split("==") for pin in pins)

    python, datascience = versions("python"), versions("datascience")
    shared = python.keys() & datascience.keys()
    assert shared
    assert {name: python[name] for name in shared} == {name: datascience[name] for name in shared}


def test_the_imports_of_a_module_are_those_that_the_language_finds() -> None:
    package = Path(images.__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        nodes = [*ast.walk(ast.parse(path.read_bytes()))]
        found = {
            alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
        } | {
            f"{node.module}.{alias.name}"
            for node in nodes
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }
        ours = {name for name in found if name.split(".")[0] == "sandbox"}
        assert images._imports(path) == ours, path
