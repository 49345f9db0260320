from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox import resources
from sandbox.errors import NotFound, PolicyError
from sandbox.policy import check_file, describe, load, seccomp_profile

BASE = "version: 1\nlimits:\n  memory: 2GiB\n  pids: 100\ntools: [execute_code, read_file]\n"


def write(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        (directory / f"{name}.yaml").write_text(text)
    return directory


def only_error(directory: Path, text: str) -> PolicyError:
    """The one error of a policy called ``p``."""
    write(directory, p=text)
    errors = check_file(directory / "p.yaml")
    assert len(errors) == 1, errors
    return errors[0]


# --- the built-in policies


@pytest.mark.parametrize("name", ["offline", "datascience"])
def test_a_built_in_policy_is_valid_and_says_everything(name: str) -> None:
    path = resources.policies() / f"{name}.yaml"
    assert check_file(path) == []
    policy = load().get(name)
    said = describe(policy)
    del said["name"], said["digest"], said["extends"]
    # Nothing is left to a default that a reader of the file would not see.
    assert _keys(yaml.safe_load(path.read_text())) == _keys(said)


def _keys(data: Any) -> Any:
    return {k: _keys(v) for k, v in data.items()} if isinstance(data, dict) else None


def test_offline_is_the_default_and_the_default_of_the_model() -> None:
    policies = load()
    assert policies.names() == [
        *("allowlist", "ci-eval", "datascience", "offline", "package-index", "readonly-data"),
    ]
    assert policies.get() == policies.get("offline")
    assert policies.default == "offline"
    said = describe(policies.get())
    assert said["limits"]["memory"] == "1GiB"
    assert said["network"] == "none"


def test_a_description_is_a_policy_file(tmp_path: Path) -> None:
    said = describe(load().get("datascience"))
    del said["name"], said["digest"], said["extends"]
    write(tmp_path, datascience=yaml.safe_dump(said))
    assert load(tmp_path, default="datascience").get() == load().get("datascience")


# --- names


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/passwd", "a/b", "a.b", "Offline", "a" * 65, "a\0", "off line", "ö"]
)
def test_a_name_that_could_be_a_path_is_refused_as_a_name(name: str) -> None:
    with pytest.raises(PolicyError, match="cannot be the name"):
        load().get(name)


def test_an_absent_policy_is_not_found_and_the_closest_is_named() -> None:
    with pytest.raises(NotFound) as caught:
        load().get("oflline")
    assert "`offline`" in caught.value.remedy


# --- values


@pytest.mark.parametrize(
    ("text", "line", "key", "remedy"),
    [
        ("limits:\n  memry: 1GiB\n", 2, "limits.memry", "Did you mean `memory`?"),
        ("limit:\n  memory: 1GiB\n", 1, "limit", "Did you mean `limits`?"),
        ("limits:\n  memory_bytes: 5\n", 2, "limits.memory_bytes", "Did you mean `memory`?"),
        ("workspace: {size: 1GiB, node: 3}\n", 1, "workspace.node", "Did you mean `inodes`?"),
        ("mount: []\n", 1, "mount", "Did you mean `mounts`?"),
        ("egress:\n  - host: a\n", 1, "egress", "Did you mean"),
        ("limits:\n  memory: 1073741824\n", 2, "limits.memory", "unit"),
        ("limits:\n  memory: 1 GB\n", 2, "limits.memory", "unit"),
        ("limits:\n  memory: 1MiB\n", 2, "limits.memory", "from 192MiB to 1TiB"),
        ("limits:\n  memory: 2TiB\n", 2, "limits.memory", "from 192MiB to 1TiB"),
        ("limits:\n  memory:\n", 2, "limits.memory", "unit"),
        ("limits:\n  memory: true\n", 2, "limits.memory", "unit"),
        ("limits:\n  idle: 30\n", 2, "limits.idle", "unit"),
        ("limits:\n  idle: 5s\n", 2, "limits.idle", "from 1m to 7d"),
        ("limits:\n  execution: 0s\n", 2, "limits.execution", "from 1s to 1d"),
        ("limits:\n  lifetime: 31d\n", 2, "limits.lifetime", "from 1m to 30d"),
        (
            "limits:\n  lifetime: 10m\n  idle: 1m\n  execution: 11m\n",
            4,
            "limits.execution",
            "Lower",
        ),
        ("limits:\n  lifetime: 4m\n", 1, "limits.execution", "Lower"),
        ("limits:\n  pids: 0\n", 2, "limits.pids", "from 32 to 32768"),
        ("limits:\n  pids: -1\n", 2, "limits.pids", "from 32 to 32768"),
        ("limits:\n  pids: 100.0\n", 2, "limits.pids", "such as `4`"),
        ("limits:\n  pids: '100'\n", 2, "limits.pids", "such as `4`"),
        ("limits:\n  pids: true\n", 2, "limits.pids", "such as `4`"),
        ("limits:\n  kernels: 0\n", 2, "limits.kernels", "from 1 to 64"),
        ("limits: {checkpoints: 0}\ncheckpoint: auto\n", 2, "checkpoint", "Raise"),
        ("limits:\n  cpus: 0\n", 2, "limits.cpus", "from 0.1 to 512"),
        ("limits:\n  cpus: .inf\n", 2, "limits.cpus", "such as `1.5`"),
        ("limits:\n  cpus: .nan\n", 2, "limits.cpus", "such as `1.5`"),
        ("limits:\n  open_files: 10\n", 2, "limits.open_files", "from 256"),
        ("limits:\n  file_size: 1KiB\n", 2, "limits.file_size", "from 1MiB"),
        ("limits:\n  output: 1GiB\n", 2, "limits.output", "to 16MiB"),
        ("limits: 3\n", 1, "limits", "key: value"),
        ("limits:\n", 1, "limits", "key: value"),
        ("workspace:\n  size: 900MiB\n", 0, "limits.memory", "Write at least"),
        ("workspace: {inodes: 300}\n", 1, "workspace.size", ""),
        ("shm: 1B\n", 1, "shm", "from 1MiB"),
        ("network: bridge\n", 1, "network", "Write `none`"),
        ("network: no\n", 1, "network", "Write `none`"),
        ("network: null\n", 1, "network", "Write `none`"),
        ("network: [none]\n", 1, "network", "Write `none`"),
        ("image: pyhton\n", 1, "image", "Did you mean `python`?"),
        ("image: docker.example/evil:latest\n", 1, "image", "Accepted here"),
        ("image: [python]\n", 1, "image", "Did you mean `python`?"),
        ("runtimes: [runc]\n", 1, "runtimes", "Did you mean `runtime`?"),
        ("runtime: runc\n", 1, "runtime", "key: value"),
        ("runtime: {prefer: runc}\n", 1, "runtime.prefer", "list"),
        ("runtime: {prefer: []}\n", 1, "runtime.prefer", "list"),
        ("runtime: {prefer: [runc, runsk]}\n", 1, "runtime.prefer.1", "Did you mean `runsc`?"),
        ("runtime: {prefer: [runc, runc]}\n", 1, "runtime.prefer", "once"),
        ("runtime: {require: kata}\n", 1, "runtime.require", "Accepted here"),
        ("runtime: {prefer: [runc], require: gvisor}\n", 1, "runtime.require", "Add `runsc`"),
        ("runtime: {seccomp: unconfined}\n", 1, "runtime.seccomp", "Accepted here"),
        ("tools: [execute_cod]\n", 1, "tools.0", "Did you mean `execute_code`?"),
        ("tools: ['*', execute_code]\n", 1, "tools", "alone"),
        ("tools: []\n", 1, "tools", "list"),
        ("tools: [[execute_code]]\n", 1, "tools.0", "Did you mean `execute_code`?"),
        ("version: 2\n", 1, "version", "from 1 to 1"),
        ("version: '1'\n", 1, "version", "such as `4`"),
        ("name: p\n", 1, "name", ""),
        ("description: [a]\n", 1, "description", ""),
        ("extends: [offline]\n", 1, "extends", ""),
        ("extends: p\n", 1, "extends", ""),
        ("extends: ../offline\n", 1, "extends", ""),
        ("extends: oflline\n", 1, "extends", ""),
    ],
)
def test_a_wrong_value_is_refused_with_its_file_line_key_and_remedy(
    tmp_path: Path, text: str, line: int, key: str, remedy: str
) -> None:
    error = only_error(tmp_path, text)
    assert (error.file, error.line, error.key) == (str(tmp_path / "p.yaml"), line, key)
    assert remedy in error.remedy
    assert error.reason


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, p="limits:\n  memory: 1\n  pidz: 2\nnetwork: host\n")
    errors = check_file(tmp_path / "p.yaml")
    assert {error.key for error in errors} == {"limits.memory", "limits.pidz", "network"}
    assert [error.line for error in sorted(errors, key=lambda e: e.line)] == [2, 3, 4]


def test_an_error_reads_as_a_line_with_place_reason_and_remedy(tmp_path: Path) -> None:
    error = only_error(tmp_path, "version: 1\nlimits:\n  memry: 1GiB\n")
    assert str(error) == (
        f"{tmp_path / 'p.yaml'}:3: limits.memry: is not a key here. Did you mean `memory`?"
    )


# --- extends


def test_a_policy_over_another_has_all_it_does_not_change(tmp_path: Path) -> None:
    write(tmp_path, base=BASE, tight="extends: base\nlimits:\n  pids: 50\n")
    policies = load(tmp_path, default="base")
    base, tight = policies.get("base"), policies.get("tight")
    assert tight.limits.pids == 50
    assert tight.limits.memory_bytes == base.limits.memory_bytes
    assert tight.tools == base.tools
    assert tight.extends == "base"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("limits:\n  memory: 2049MiB\n", "limits.memory"),
        ("limits:\n  cpus: 1.01\n", "limits.cpus"),
        ("limits:\n  pids: 101\n", "limits.pids"),
        ("limits:\n  open_files: 1025\n", "limits.open_files"),
        ("limits:\n  file_size: 513MiB\n", "limits.file_size"),
        ("limits:\n  disk_read: 65MiB\n", "limits.disk_read"),
        ("limits:\n  disk_write: 65MiB\n", "limits.disk_write"),
        ("limits:\n  output: 257KiB\n", "limits.output"),
        ("limits:\n  execution: 301s\n", "limits.execution"),
        ("limits:\n  idle: 31m\n", "limits.idle"),
        ("limits:\n  lifetime: 9h\n", "limits.lifetime"),
        ("limits:\n  sessions: 5\n", "limits.sessions"),
        ("limits:\n  kernels: 5\n", "limits.kernels"),
        ("limits:\n  checkpoints: 9\n", "limits.checkpoints"),
        ("limits:\n  auto_checkpoints: 4\n", "limits.auto_checkpoints"),
        ("limits:\n  terminals: 5\n", "limits.terminals"),
        ("limits:\n  commands: 9\n", "limits.commands"),
        ("workspace:\n  size: 513MiB\n", "workspace.size"),
        ("workspace:\n  size: 512MiB\n  inodes: 65537\n", "workspace.inodes"),
        ("tmp:\n  size: 129MiB\n  inodes: 16384\n", "tmp.size"),
        ("tmp:\n  size: 128MiB\n  inodes: 16385\n", "tmp.inodes"),
        ("shm: 65MiB\n", "shm"),
        ("image: datascience\n", "image"),
        ("workspace: {size: 512MiB, persistent: true}\n", "workspace.persistent"),
        ("runtime: {prefer: [runsc, runc]}\n", "runtime.prefer"),
        ("approve: {timeout: 2m}\n", "approve.timeout"),
        ("mounts: [{root: a, target: /data/a}]\n", "mounts.0"),
        ("network: {allow: [{domain: a.example.com}]}\n", "network.allow.0"),
        ("secrets: [{name: a, as: file}]\n", "secrets.0"),
        ("tools: [execute_code, run_command]\n", "tools"),
        ("tools: ['*']\n", "tools"),
    ],
)
def test_no_key_may_allow_more_than_the_policy_it_extends(
    tmp_path: Path, text: str, key: str
) -> None:
    write(tmp_path, base=BASE)
    error = only_error(tmp_path, f"extends: base\n{text}")
    assert error.key == key
    assert error.line >= 2
    assert error.remedy
    with pytest.raises(PolicyError):
        load(tmp_path, default="base")


def test_every_number_of_a_policy_is_among_those_that_may_not_be_loosened() -> None:
    said = describe(load().get())
    numbers = {f"limits.{key}" for key in said["limits"]} - {"limits.freeze"}  # allows nothing
    numbers |= {f"{part}.{key}" for part in ("workspace", "tmp") for key in said[part]} | {"shm"}
    marks = test_no_key_may_allow_more_than_the_policy_it_extends.pytestmark
    tried = {key for mark in marks for _, key in mark.args[1]}
    assert numbers <= tried


@pytest.mark.parametrize(
    "text",
    [
        *(
            "tools: [execute_code]\n",
            "tools: [execute_code, read_file]\n",
            "runtime: {prefer: [runsc]}\n",
            "runtime: {require: gvisor}\n",
        ),
        *(
            "runtime: {prefer: [runc]}\n",
            "network: none\n",
            "image: python\n",
            "description: less\n",
        ),
        *("limits: {memory: 2GiB, pids: 100}\n", "workspace: {size: 8MiB, inodes: 300}\n"),
        *("shm: 1MiB\n", "workspace: {size: 8MiB}\n", "limits: {terminals: 0}\n", ""),
        *("limits: {freeze: 1s}\n", "limits: {freeze: 1h}\n", "limits: {freeze: 0s}\n"),
        *("checkpoint: auto\n", "limits: {checkpoints: 0, auto_checkpoints: 0}\n"),
    ],
)
def test_a_policy_may_take_away(tmp_path: Path, text: str) -> None:
    write(tmp_path, base=BASE, p=f"extends: base\n{text}")
    assert check_file(tmp_path / "p.yaml") == []


def test_extends_has_one_level(tmp_path: Path) -> None:
    write(tmp_path, base=BASE, middle="extends: base\n", p="extends: middle\n")
    with pytest.raises(PolicyError, match="one level") as caught:
        load(tmp_path, default="base")
    assert caught.value.file == str(tmp_path / "p.yaml")


def test_two_policies_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    write(tmp_path, offline="extends: p\n", p="extends: offline\n")
    with pytest.raises(PolicyError, match="one level"):
        load(tmp_path)


def test_a_fault_of_the_extended_policy_is_told_with_its_own_file(tmp_path: Path) -> None:
    write(tmp_path, base="limits: {memory: 1}\n", p="extends: base\n")
    errors = check_file(tmp_path / "p.yaml")
    assert [error.file for error in errors] == [str(tmp_path / "base.yaml")]


def test_a_policy_may_extend_a_built_in_one_from_another_directory(tmp_path: Path) -> None:
    write(tmp_path, mine="extends: offline\nlimits:\n  kernels: 1\n")
    assert check_file(tmp_path / "mine.yaml") == []
    policies = load(resources.policies(), tmp_path)
    assert policies.get("mine").limits.kernels == 1
    assert policies.get().name == "offline"


# --- what the documentation shows


def examples() -> list[tuple[str, str]]:
    """Each policy in the documentation, with its file's name from the first line."""
    root = resources.checkout()
    assert root is not None
    texts = [(root / name).read_text() for name in ("README.md", "docs/policies.md")]
    blocks = [block for text in texts for block in re.findall(r"```yaml\n(.*?)```", text, re.S)]
    named = [(re.match(r"# (?:.*/)?([a-z0-9-]+)\.yaml\n", block), block) for block in blocks]
    return [(match[1], block) for match, block in named if match]


@pytest.mark.parametrize(("name", "text"), examples())
def test_a_policy_in_the_documentation_is_a_good_one(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path, **{name: text})
    assert check_file(tmp_path / f"{name}.yaml") == []


def test_every_key_is_explained_in_the_documentation() -> None:
    root = resources.checkout()
    assert root is not None
    text = (root / "docs" / "policies.md").read_text()
    said = describe(load().get())
    del said["name"], said["digest"]
    keys = [*said, *(f"limits.{key}" for key in said["limits"])]
    assert len(examples()) >= 3
    assert [key for key in keys if f"`{key}`" not in text] == []


# --- directories


def test_one_wrong_policy_keeps_all_from_loading(tmp_path: Path) -> None:
    write(tmp_path, offline="version: 1\n", other="limts: {}\n")
    with pytest.raises(PolicyError, match="limts"):
        load(tmp_path)


def test_the_same_name_in_two_directories_is_refused(tmp_path: Path) -> None:
    write(tmp_path, offline="version: 1\n")
    with pytest.raises(PolicyError, match="already"):
        load(resources.policies(), tmp_path)


def test_a_default_that_is_not_there_is_refused_at_start_up(tmp_path: Path) -> None:
    write(tmp_path, mine="version: 1\n")
    with pytest.raises(PolicyError, match="default"):
        load(tmp_path)
    assert load(tmp_path, default="mine").get().name == "mine"


@pytest.mark.parametrize("name", ["p.yml", "P.yaml", "a b.yaml", ".yaml", "..yaml"])
def test_a_file_that_would_be_overlooked_is_an_error(tmp_path: Path, name: str) -> None:
    write(tmp_path, offline="version: 1\n")
    (tmp_path / name).write_text("version: 1\n")
    if name == ".yaml":  # a hidden file without a suffix, left alone like any other file
        assert load(tmp_path).names() == ["offline"]
    else:
        with pytest.raises(PolicyError):
            load(tmp_path)


def test_an_absent_directory_is_a_policy_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        load(tmp_path / "absent")


def test_an_absent_file_is_one_error(tmp_path: Path) -> None:
    assert [e.reason for e in check_file(tmp_path / "absent.yaml")] == [
        "cannot be read: No such file or directory"
    ]


# --- the seccomp profile


def test_the_seccomp_profile_refuses_what_it_does_not_name() -> None:
    profile = json.loads(seccomp_profile())
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert "\n" not in seccomp_profile()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"defaultAction": "SCMP_ACT_ALLOW"}', '{"defaultAction": []}']
)
def test_a_profile_that_is_no_allow_list_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(PolicyError):
        seccomp_profile(path)
