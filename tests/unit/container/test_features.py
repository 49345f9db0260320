"""What an engine cannot, and what answers for it then."""

from __future__ import annotations

import pytest

from sandbox.container.compiler import require_enforceable
from sandbox.container.examination import examine
from sandbox.container.features import ALL, TRAITS, Feature, wishes
from sandbox.container.measurement import Facts
from sandbox.container.spec import ContainerSpec
from sandbox.errors import PolicyNotEnforced

from .test_proof import as_measured, as_measured_by_gvisor, spec_for, with_folders
from .test_spec import compiled

MOOT = {Feature.INIT, Feature.WORKING_DIR}
# What no check inside decides, so that an engine has to report it.
REPORTED_ALONE = {
    *(Feature.IMAGE, Feature.COMMAND, Feature.RUNTIME, Feature.SECCOMP, Feature.APPARMOR),
    *(Feature.SWAP, Feature.CPU, Feature.OOM_SCORE, Feature.PRIVATE_IPC, Feature.PRIVATE_CGROUPS),
    *(Feature.TMPFS_OWNER, Feature.MASKED_PATHS, Feature.READ_ONLY_PATHS, Feature.NO_LOG),
    Feature.NOTHING_ELSE,
}


def undecided(spec: ContainerSpec, facts: object, reports: frozenset[Feature]) -> set[str]:
    directories = {mount.target: (7, 8) for mount in spec.mounts}
    proof = examine(spec, Facts.model_validate(facts), directories, reports=reports)
    return {check.name.removeprefix("not reported.") for check in proof.failed}


def test_every_feature_has_its_line_in_the_table() -> None:
    assert TRAITS.keys() == ALL
    assert {name for name, trait in TRAITS.items() if trait.moot} == MOOT


@pytest.mark.parametrize("name", Feature)
def test_what_an_engine_cannot_enforce_is_refused_and_named_if_it_is_wished(name: Feature) -> None:
    if name in MOOT or name not in wishes(compiled()):
        assert compiled(enforces=ALL - {name})
        return
    with pytest.raises(PolicyNotEnforced) as caught:
        compiled(enforces=ALL - {name})
    assert f": {name}." in caught.value.message
    assert "'e' (version 1)" in caught.value.message
    assert caught.value.remedy


def test_an_engine_that_says_nothing_of_itself_makes_nothing() -> None:
    with pytest.raises(PolicyNotEnforced, match="seccomp"):
        compiled(enforces=frozenset())
    require_enforceable(compiled(), ALL, "e")


def test_without_the_engines_word_exactly_what_is_measured_inside_is_decided() -> None:
    spec, facts = with_folders()
    wished = set(wishes(spec))
    assert undecided(spec, facts, frozenset()) == REPORTED_ALONE & wished
    for name in wished:
        assert undecided(spec, facts, ALL - {name}) == {name} & REPORTED_ALONE


def test_a_folder_that_nobody_looked_at_is_not_decided_inside() -> None:
    spec, facts = with_folders()
    for directories in ({}, {"/data/a": (7, 8)}):
        proof = examine(
            spec, Facts.model_validate(facts), directories, reports=ALL - {Feature.MOUNTS}
        )
        assert [check.name for check in proof.failed] == ["not reported.mounts"]


def test_what_gvisor_does_not_show_has_to_be_reported_there() -> None:
    spec = spec_for("runsc")
    facts = as_measured_by_gvisor(spec)
    hidden = {Feature.MEMORY, Feature.TMPFS_INODES, Feature.SYSCTLS}
    for name in hidden:
        assert undecided(spec, facts, ALL - {name}) == {name}
    runc = spec_for()
    assert undecided(runc, as_measured(runc), ALL - hidden) == set()


def test_a_proof_lists_what_the_engine_did_not_report_and_what_decided_it() -> None:
    spec = spec_for()
    facts = Facts.model_validate(as_measured(spec))
    proof = examine(spec, facts, reports=ALL - {Feature.USER, Feature.INIT})
    listed = {c.name: c.found for c in proof.checks if c.name.startswith("not reported.")}
    assert listed.keys() == {"not reported.user", "not reported.init"}
    assert listed["not reported.user"] == "uid, gid, groups"
    assert proof.reported == len(wishes(spec)) - 2
    assert proof.failed == ()
