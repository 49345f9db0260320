"""Packages that a policy adds to its image: built, told, used without a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from sandbox.container import images
from sandbox.container.manifests import manifest_of
from sandbox.container.packagelock import packages_of
from sandbox.pipindex import configured
from sandbox.policy import ImagePolicy, load, load_file
from sandbox.policy.lockfiles import write_lock
from sandbox.runtimes.docker import buildhost

from ..support.served import sandbox

Run = Callable[..., tuple[int, str, str]]

POLICY = """\
version: 1
description: Numbers for people, and letters as large as a house.
image: {from: python, pip: [humanize], apt: [figlet]}
"""
USES = """\
import glob, humanize, json, os, subprocess
print(json.dumps({
    "humanize": humanize.intcomma(1234567),
    "figlet": subprocess.run(["figlet", "x"], capture_output=True, text=True).stdout,
    "compiled": bool(glob.glob(os.path.dirname(humanize.__file__) + "/__pycache__/*.pyc")),
    "writable": os.access(humanize.__file__, os.W_OK),
    "set-id": subprocess.getoutput("find / -xdev -perm /6000 2>/dev/null"),
    "left": [each for each in ("/build", "/tree") if os.path.exists(each)],
    "index": subprocess.getoutput("pip config list"),
}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of policies with one that adds packages, whose images go when the tests end."""
    made = tmp_path_factory.mktemp("policies")
    (made / "adding.yaml").write_text(POLICY)
    yield made
    image = load_file(made / "adding.yaml").image
    client = docker.from_env()
    for recipe in images.chain(image)[-2:]:
        client.api.remove_image(recipe.reference)
    client.close()


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Run:
    def call(*words: str) -> tuple[int, str, str]:
        done = sandbox(tmp_path, *words, "--policies", str(folder))
        return done.returncode, done.stdout, done.stderr

    return call


def test_a_policy_whose_image_is_not_built_says_which_command_builds_it(run: Run) -> None:
    code, _, said = run("run", "--policy", "adding", "-c", "1")
    assert code != 0
    assert "`sandbox image build --policy adding`" in said
    assert "python with humanize, figlet (Debian)" in said


def test_packages_are_looked_up_locked_and_built_once(run: Run, folder: Path) -> None:
    code, told, progress = run("image", "build", "--policy", "adding")
    assert code == 0, progress
    assert "is built" in told
    assert "RUN python3" in progress
    (lock,) = (folder / "locks").iterdir()
    assert {each.name for each in packages_of(lock.read_bytes())} == {"humanize", "figlet"}
    code, told, progress = run("image", "build", "--policy", str(folder / "adding.yaml"))
    assert (code, progress) == (0, "")
    assert "is current" in told


def test_they_are_there_without_a_network_and_cannot_be_changed(run: Run) -> None:
    code, told, said = run("run", "--policy", "adding", "-c", USES)
    assert code == 0, said
    found = json.loads(told)
    assert found.pop("humanize") == "1,234,567"
    assert "_" in found.pop("figlet")
    assert found == {
        "compiled": True,
        "writable": False,
        "set-id": "",
        "left": [],
        "index": found["index"],
    }
    assert "index" not in found["index"]


def test_nothing_that_the_building_machine_lends_is_left(folder: Path) -> None:
    reference = images.reference(load_file(folder / "adding.yaml").image)
    client = docker.from_env()
    image = client.images.get(reference)
    told = json.dumps([image.history(), image.attrs])
    client.close()
    index = configured()
    lent = [*index.variables().values(), *buildhost.apt_sources()]
    assert not [each for each in lent if each in told]


def test_the_list_of_images_and_the_manifest_tell_of_them(run: Run, folder: Path) -> None:
    _, told, _ = run("image", "list")
    assert "policy adding" in told
    policies = load(folder, default="adding")
    image = policies.get().image
    assert "humanize" in manifest_of(image, policies.lock_of(image)).packages


@pytest.mark.parametrize(
    ("added", "key", "cause"),
    [
        ("pip: [no-such-package-0x0]", "image.pip", "No matching distribution found for no-such"),
        ("pip: ['docopt==0.6.2']", "image.pip", "No matching distribution found for docopt"),
        ("apt: [no-such-package]", "image.apt", "there is no Debian package 'no-such-package'"),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_line(
    run: Run, tmp_path: Path, added: str, key: str, cause: str
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(f"version: 1\nimage: {{{added}}}\n")
    code, _, said = run("image", "build", "--policy", str(file))
    assert code != 0
    (line,) = [each for each in said.splitlines() if cause in each]
    assert f"{file}: {key}: " in line
    assert not (tmp_path / "locks").exists()


def test_a_lock_replaces_nothing_that_an_image_has(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text("version: 1\nimage: {pip: [ipykernel]}\n")
    digest = "0" * 64
    write_lock(
        load_file(file).image.lock_file(tmp_path), f"pip ipykernel==1.0 sha256:{digest}\n".encode()
    )
    code, _, said = run("image", "build", "--policy", str(file))
    assert code != 0
    assert "the lock has ipykernel==1.0, and the image has ipykernel==" in said
    assert "--force" in said


@pytest.mark.parametrize("base", ["python", "datascience"])
def test_a_manifest_tells_what_is_in_the_image(base: str) -> None:
    client = docker.from_env()
    said = client.containers.run(
        images.reference(base),
        [
            *("python3", "-c"),
            "import importlib.metadata as m, json, sys\n"
            "found = {d.name.lower().replace('_', '-').replace('.', '-'): d.version\n"
            "         for d in m.distributions() if '/usr/local/' in str(d.locate_file(''))}\n"
            "print(json.dumps([found, '%d.%d' % sys.version_info[:2],\n"
            "                  open('/usr/local/share/debian-packages.txt').read()]))",
        ],
        network_mode="none",
        remove=True,
    )
    client.close()
    packages, python, debian = json.loads(said)
    manifest = manifest_of(ImagePolicy.model_validate({"base": base}))
    assert manifest.packages == packages
    assert manifest.python == python
    assert {line.split()[0].partition(":")[0] for line in debian.splitlines()} >= {*manifest.tools}
