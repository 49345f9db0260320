"""Sessions of every policy through a broker."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.policy import load

from ..support.brokerprocess import BrokerProcess, broker_process
from ..support.served import sandbox

WITHOUT_MOUNTS = [name for name in load().names() if not load().get(name).mounts]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with broker_process(tmp_path_factory.mktemp("broker")) as running:
        yield running


def run(broker: BrokerProcess, state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """``sandbox run`` through the broker."""
    return sandbox(state, "run", "--engine", broker.address, *words)


@pytest.mark.parametrize("policy", WITHOUT_MOUNTS)
def test_a_session_of_each_policy_is_made(
    broker: BrokerProcess, tmp_path: Path, policy: str
) -> None:
    done = run(broker, tmp_path, "--policy", policy, "-c", "print(6 * 7)")
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


def test_a_policy_that_only_the_controller_has_is_refused_with_what_to_do(
    broker: BrokerProcess, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.yaml").write_text("version: 1\nextends: offline\n")
    done = run(
        broker, tmp_path / "state", "--policies", str(own), "--policy", "mine", "-c", "print(1)"
    )
    assert done.returncode == 4
    assert "does not know the policy 'mine'" in done.stderr
    assert "same version, policy files" in done.stderr


def test_images_are_not_built_through_it(broker: BrokerProcess, tmp_path: Path) -> None:
    done = sandbox(tmp_path, "image", "list", "--engine", broker.address)
    assert done.returncode == 2
    assert "builds no images" in done.stderr
