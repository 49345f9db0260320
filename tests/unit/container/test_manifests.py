"""What is told of the packages of an image."""

from __future__ import annotations

from sandbox.container.manifests import MAX_TEXT, manifest_of
from sandbox.policy import ImagePolicy

HASH = f"sha256:{'0a' * 32}"
LOCK = f"pip humanize==4.17.0 {HASH}\napt figlet=2.2.5-3 {HASH}\n".encode()


def test_the_packages_of_an_image_are_those_of_its_locks_and_of_what_it_stands_on() -> None:
    python, datascience = manifest_of(ImagePolicy()), manifest_of(ImagePolicy(base="datascience"))
    assert python.has("ipykernel")
    assert not python.has("pandas")
    assert datascience.has("ipykernel")
    assert datascience.has("Scikit_Learn")
    assert datascience.python == python.python == "3.11"


def test_a_row_is_short_and_names_what_somebody_asked_for() -> None:
    for base in ("python", "datascience"):
        told = str(manifest_of(ImagePolicy(base=base)))
        assert told.startswith(f"{base}: Python 3.11, ")
        assert len(told) <= MAX_TEXT
    assert "git, jq" in str(manifest_of(ImagePolicy()))
    assert "gcc" not in manifest_of(ImagePolicy()).tools  # of a stage that only compiles
    assert "pandas" in str(manifest_of(ImagePolicy(base="datascience")))
    assert "asttokens" not in str(manifest_of(ImagePolicy()))


def test_what_a_policy_adds_comes_first_with_its_version() -> None:
    image = ImagePolicy(pip=("humanize>=4",), apt=("figlet",))
    manifest = manifest_of(image.under(LOCK), LOCK)
    assert manifest.packages["humanize"] == "4.17.0"
    assert "packages: humanize 4.17.0, figlet, " in str(manifest)


def test_a_lock_that_is_wrong_says_nothing() -> None:
    image = ImagePolicy(pip=("humanize",))
    assert not manifest_of(image.under(b"!"), b"!").has("humanize")
