"""Pages of an index, and the paths by which sessions ask for them."""

from __future__ import annotations

import json

import pytest

from sandbox.egress.packagepages import MAX_PATH, IndexFile, Wanted, read_path, read_project

HASH = "0a" * 32
URL = "https://index.example/simple/numpy/"


def row(**more: object) -> dict[str, object]:
    return {
        "filename": "numpy-2.0-py3-none-any.whl",
        "url": "https://files.example/n.whl",
        "hashes": {"sha256": HASH},
        **more,
    }


def page(*rows: object) -> str:
    return json.dumps({"meta": {"api-version": "1.1"}, "files": rows})


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/0/numpy/", Wanted(0, "numpy")),
        ("/12/ruamel-yaml/", Wanted(12, "ruamel-yaml")),
        ("/0/numpy/numpy-2.0-py3.whl", Wanted(0, "numpy", "numpy-2.0-py3.whl")),
        ("/0/torch/torch-2.1%2Bcpu-py3.whl", Wanted(0, "torch", "torch-2.1+cpu-py3.whl")),
        ("/0/torch/torch-2.1+cpu.whl.metadata", Wanted(0, "torch", "torch-2.1+cpu.whl.metadata")),
        ("/0/a/b-1%210.tar.gz", Wanted(0, "a", "b-1!0.tar.gz")),
    ],
)
def test_a_path_names_an_index_a_project_and_a_file(path: str, wanted: Wanted) -> None:
    assert read_path(path) == wanted


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/0/", "/0/numpy", "/numpy/", "/0/Numpy/", "/0/a_b/", "/0/a.b/", "/0/../x/"),
        *("/0/numpy/../x", "/0/numpy/.hidden", "/0/numpy/a/b", "/0/numpy/a%2fb", "/0/numpy/a%00"),
        *("//0/numpy/", "/0//numpy/", "/0/numpy/?x=1", "/0/numpy/a?b", "/0/numpy/#", "/100/numpy/"),
        *("/0/numpy/a b", "/0/-a/", "/0/a-/", "/0/é/", "/-1/numpy/", "/0/numpy/\n", "/٠/numpy/"),
        *("/0/" + "a" * MAX_PATH + "/", "http://a.example/0/numpy/", "/0/numpy/%2e%2e"),
    ],
)
def test_a_path_of_another_form_asks_for_nothing(path: str) -> None:
    assert read_path(path) is None


def test_a_page_is_written_anew_with_links_to_itself() -> None:
    given = row(**{"size": 5, "requires-python": ">=3.11", "yanked": False, "gpg-sig": True})
    project = read_project("numpy", URL, page(given), is_json=True)
    assert project.files == {
        "numpy-2.0-py3-none-any.whl": IndexFile("https://files.example/n.whl", HASH, 5)
    }
    told = json.loads(project.body)
    assert told["name"] == "numpy"
    assert told["files"] == [
        {
            "filename": "numpy-2.0-py3-none-any.whl",
            "url": "numpy-2.0-py3-none-any.whl",
            "hashes": {"sha256": HASH},
            "size": 5,
            "requires-python": ">=3.11",
        }
    ]


@pytest.mark.parametrize("key", ["core-metadata", "dist-info-metadata"])
def test_metadata_with_a_hash_is_a_file_of_its_own(key: str) -> None:
    project = read_project("numpy", URL, page(row(**{key: {"sha256": HASH}})), is_json=True)
    assert project.files["numpy-2.0-py3-none-any.whl.metadata"] == IndexFile(
        "https://files.example/n.whl.metadata", HASH
    )
    plain = read_project("numpy", URL, page(row(**{key: True})), is_json=True)
    assert list(plain.files) == ["numpy-2.0-py3-none-any.whl"]


@pytest.mark.parametrize(
    "bad",
    [
        row(hashes={}),
        row(hashes={"md5": "0"}),
        row(hashes={"sha256": "xyz"}),
        row(hashes=None),
        row(filename="../x.whl"),
        row(filename="a/b.whl"),
        row(filename=""),
        row(filename="a\n.whl"),
        {"filename": "a.whl"},
        "a.whl",
        None,
    ],
)
def test_what_cannot_be_verified_or_named_is_left_out(bad: object) -> None:
    project = read_project("numpy", URL, page(bad, row()), is_json=True)
    assert list(project.files) == ["numpy-2.0-py3-none-any.whl"]


def test_a_name_that_comes_twice_is_the_first() -> None:
    text = page(row(), row(url="https://other.example/n.whl"))
    (file,) = read_project("numpy", URL, text, is_json=True).files.values()
    assert file.url == "https://files.example/n.whl"


def test_a_page_of_links_says_the_same() -> None:
    text = (
        '<a href="../../files/numpy-1.0%2Blocal.tar.gz#sha256='
        f'{HASH}" data-requires-python="&gt;=3.9" data-yanked="broken">x</a>'
        '<a href="unhashed.whl">y</a>'
    )
    project = read_project("numpy", URL, text, is_json=False)
    assert project.files == {
        "numpy-1.0+local.tar.gz": IndexFile(
            "https://index.example/files/numpy-1.0%2Blocal.tar.gz", HASH
        )
    }
    (told,) = json.loads(project.body)["files"]
    assert (told["requires-python"], told["yanked"]) == (">=3.9", "broken")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": {}}', "[" * 100_000])
def test_what_is_no_page_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="its page"):
        read_project("numpy", URL, text, is_json=True)


def test_a_page_of_links_with_a_declaration_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="its page"):
        read_project("numpy", URL, "<![foo[", is_json=False)
