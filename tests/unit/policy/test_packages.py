"""What a policy may add to an image, how that is written, and its lock beside the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sandbox.errors import PolicyError
from sandbox.policy import (
    ImagePolicy,
    LivePolicies,
    Policy,
    cautions,
    check_file,
    describe,
    difference,
    explain,
    load,
)
from sandbox.policy.lockfiles import MAX_BYTES, read_lock, write_lock
from sandbox.policy.packages import MAX_PACKAGES

from ...support.clock import Clock

ADDING = 'version: 1\nimage: {from: datascience, pip: ["polars>=1.2,<2"], apt: [graphviz]}\n'


def written(folder: Path, text: str = ADDING, name: str = "p") -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(text)
    return file


def only(folder: Path, name: str = "p") -> Policy:
    return load(folder, default=name).get(name)


def image(text: str) -> str:
    return f"version: 1\nimage: {{{text}}}\n"


def test_lists_of_packages_stand_beside_the_name_of_an_image(tmp_path: Path) -> None:
    written(tmp_path)
    added = only(tmp_path).image
    assert (added.base, added.pip, added.apt) == ("datascience", ("polars>=1.2,<2",), ("graphviz",))
    assert str(added) == "datascience with polars>=1.2,<2, graphviz (Debian)"


@pytest.mark.parametrize(
    "entry",
    [
        *("polars", "polars==1.2", "polars == 1.2", "a.b_c-d", "ruamel.yaml>=0.17,!=0.18.0"),
        *("uvicorn[standard]", "x[a,b]~=1.0", "torch==2.1.0+cpu", "numpy==2.*", "Z3"),
    ],
)
def test_a_package_of_the_index_is_a_name_with_extras_and_versions(entry: str) -> None:
    assert ImagePolicy(pip=(entry,)).pip == (entry.replace(" ", ""),)


@pytest.mark.parametrize(
    "entry",
    [
        *("", " ", "-r x", "--index-url=https://a.example", "-e .", ".", "./p", "/p", "p.whl/../x"),
        *("https://a.example/p.whl", "p @ https://a.example/p.whl", "git+ssh://a.example/p"),
        *(
            "p; python_version > '3'",
            "p --hash=sha256:0",
            "p\n--pre",
            "p==1\nq",
            "p q",
            "p==",
            "==1",
        ),
        *(
            "p===1",
            "p==1;x",
            "p[",
            "p[]",
            "p[a",
            "p[-x]",
            "-p",
            "p-",
            "é",
            "p=1",
            "p" * 300,
            "$(x)",
        ),
        *("p`x`", "p\\", "p#x", "p%20", "file:p", "C:\\p", "p\x00"),
    ],
)
def test_what_is_no_name_of_a_package_is_refused(entry: str) -> None:
    with pytest.raises(ValidationError, match="is no name of a package"):
        ImagePolicy(pip=(entry,))


@pytest.mark.parametrize("entry", ["g++", "libstdc++6", "python3.11-dev", "fonts-noto", "0ad"])
def test_a_debian_package_is_its_name(entry: str) -> None:
    assert ImagePolicy(apt=(entry,)).apt == (entry,)


@pytest.mark.parametrize(
    "entry",
    [
        *("", "x", "foo-", "-o", "--yes", "foo=1.0", "foo/sid", "foo:i386", "Foo", "foo*", "^foo$"),
        *("./foo.deb", "/foo.deb", "foo bar", "foo\nbar", "foo_1", "foo?", "~nfoo", "ü", "a" * 200),
    ],
)
def test_what_is_no_name_of_a_debian_package_is_refused(entry: str) -> None:
    with pytest.raises(ValidationError, match="is no name of a package"):
        ImagePolicy(apt=(entry,))


@pytest.mark.parametrize(
    ("text", "key", "part"),
    [
        ("from: ubuntu", "image.from", "Accepted here"),
        ("pip: polars", "image.pip", "Write a list"),
        ("pip: [polars, ./x]", "image.pip.1", "no address, path, option"),
        ("pip: [Foo_bar, foo-bar==1]", "image.pip.1", "Keep each package once"),
        ("apt: [graphviz=2]", "image.apt.0", "graphviz"),
        ("apt: [1]", "image.apt.0", "graphviz"),
        ("npm: [x]", "image.npm", "Accepted here: `apt`, `from`, `pip`"),
        (f"locked: {'0' * 64}", "image.locked", "follows from the lock"),
    ],
)
def test_a_wrong_list_is_refused_with_its_place_and_remedy(
    tmp_path: Path, text: str, key: str, part: str
) -> None:
    (error,) = check_file(written(tmp_path, image(text)))
    assert (error.file, error.line, error.key) == (str(tmp_path / "p.yaml"), 2, key)
    assert part in error.remedy


def test_a_list_has_a_bound() -> None:
    with pytest.raises(ValidationError, match="65 packages"):
        ImagePolicy(pip=tuple(f"p{n}" for n in range(MAX_PACKAGES + 1)))


def test_an_image_without_additions_is_stored_as_its_name_as_before() -> None:
    assert '"image":"python"' in Policy(name="p").to_json()
    assert Policy.from_json(Policy(name="p").to_json()) == Policy(name="p")


def test_additions_come_back_from_a_label(tmp_path: Path) -> None:
    write_lock(only_lock(tmp_path), b"a lock")
    written(tmp_path)
    policy = only(tmp_path)
    assert policy.image.locked
    assert Policy.from_json(policy.to_json()) == policy


def only_lock(folder: Path, text: str = ADDING) -> Path:
    written(folder, text)
    return only(folder).image.lock_file(folder)


# --- a child


@pytest.mark.parametrize(
    ("child", "pip"),
    [
        ("", ("polars",)),
        ("image: {pip: [humanize]}\n", ("humanize",)),
        ("image: {from: datascience, pip: [polars, humanize]}\n", ("polars", "humanize")),
        ("image: {apt: [figlet]}\n", ("polars",)),
        ("image: datascience\n", ()),
    ],
)
def test_a_child_keeps_the_base_and_may_have_other_packages(
    tmp_path: Path, child: str, pip: tuple[str, ...]
) -> None:
    written(tmp_path, image("from: datascience, pip: [polars]"), "parent")
    written(tmp_path, f"version: 1\nextends: parent\n{child}", "child")
    made = load(tmp_path, default="child").get().image
    assert (made.base, made.pip) == ("datascience", pip)


def test_a_child_may_add_packages_to_a_plain_image(tmp_path: Path) -> None:
    written(tmp_path, "version: 1\nextends: datascience\nimage: {pip: [humanize]}\n")
    assert check_file(tmp_path / "p.yaml") == []


@pytest.mark.parametrize("child", ["python", "{from: python, pip: [humanize]}"])
def test_a_child_of_another_base_is_refused(tmp_path: Path, child: str) -> None:
    file = written(tmp_path, f"version: 1\nextends: datascience\nimage: {child}\n")
    (error,) = check_file(file)
    assert "'python' is not 'datascience'" in error.message


# --- what is told


def test_explain_says_what_is_added_and_whether_it_is_built(tmp_path: Path) -> None:
    lock = only_lock(tmp_path)
    (told,) = [each for each in explain(only(tmp_path)) if each.topic == "adds"]
    assert told.text == "polars>=1.2,<2, graphviz (Debian) to it; not built yet"
    assert told.rule == "image.pip, image.apt"
    assert any("sandbox image build" in line for line in cautions(only(tmp_path)))
    write_lock(lock, b"a lock")
    (told,) = [each for each in explain(only(tmp_path)) if each.topic == "adds"]
    assert "not built" not in told.text
    assert cautions(only(tmp_path)) == []


def test_a_description_with_packages_is_a_policy_file(tmp_path: Path) -> None:
    write_lock(only_lock(tmp_path), b"a lock")
    said = describe(only(tmp_path))
    assert said["image"] == {"from": "datascience", "pip": ["polars>=1.2,<2"], "apt": ["graphviz"]}


def test_a_difference_names_the_list_and_is_neither_tighter_nor_wider() -> None:
    plain = Policy(name="p")
    adding = Policy(name="q", image=ImagePolicy(pip=("humanize",)))
    told: list[Any] = [(each.key, each.after, each.direction) for each in difference(plain, adding)]
    assert ("image.pip", '["humanize"]', "other") in told
    assert "image" not in {key for key, _, _ in told}


# --- the lock


def test_the_lock_of_the_lists_decides_what_a_policy_is(tmp_path: Path) -> None:
    lock = only_lock(tmp_path)
    unbuilt = only(tmp_path)
    assert unbuilt.image.is_unbuilt
    write_lock(lock, b"one")
    one = only(tmp_path)
    write_lock(lock, b"two")
    two = only(tmp_path)
    assert len({policy.digest for policy in (unbuilt, one, two)}) == 3
    assert load(tmp_path, default="p").lock_of(two.image) == b"two"
    assert check_file(tmp_path / "p.yaml") == []


def test_other_lists_have_another_lock(tmp_path: Path) -> None:
    assert only_lock(tmp_path) != only_lock(tmp_path, image("from: datascience, pip: [polars]"))
    write_lock(only_lock(tmp_path), b"a lock")
    written(tmp_path, image("pip: [polars]"))
    assert only(tmp_path).image.is_unbuilt


def test_a_new_lock_counts_for_new_sessions(tmp_path: Path) -> None:
    lock, clock = only_lock(tmp_path), Clock()
    policies = LivePolicies(lambda: load(tmp_path, default="p"), [tmp_path], clock=clock)
    assert policies.get("p").image.is_unbuilt
    write_lock(lock, b"a lock")
    clock.now += 2
    assert policies.lock_of(policies.get("p").image) == b"a lock"


def test_a_lock_that_is_too_large_is_refused(tmp_path: Path) -> None:
    lock = only_lock(tmp_path)
    write_lock(lock, b"#" * (MAX_BYTES + 1))
    with pytest.raises(PolicyError, match="too large"):
        read_lock(lock)
