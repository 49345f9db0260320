"""Set-up of an engine, as far as it is decided before anything is installed or started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts import engine


class Machine:
    """Records what is run; the engine has the runtimes of its configuration once it is reloaded."""

    def __init__(self, configuration: Path) -> None:
        self.ran: list[str] = []
        self.programs: set[str] = set()
        self.packages: set[str] = set()
        self.runtimes = {"runc": {}}
        """Of the engine that runs."""
        self._configuration = configuration

    def run(self, *command: str) -> str:
        self.ran.append(" ".join(command))
        if command[:2] == ("systemctl", "reload-or-restart"):
            self.runtimes |= json.loads(self._configuration.read_text())["runtimes"]
        if command[:2] == ("apt-cache", "policy"):
            return "Candidate: 1" if command[2] in self.packages else "Candidate: (none)"
        return ""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """One with systemd, on which the installation of the package has started the engine."""
    configuration = tmp_path / "daemon.json"
    made = Machine(configuration)
    monkeypatch.setattr(engine, "CONFIGURATION", configuration)
    monkeypatch.setattr(engine, "POLL_S", 0.01)
    monkeypatch.setattr(engine, "START_TIMEOUT_S", 0.1)
    monkeypatch.setattr(engine, "run", made.run)
    monkeypatch.setattr(engine, "has_systemd", lambda: True)
    monkeypatch.setattr(engine, "answering", lambda: ({"Runtimes": made.runtimes}, ""))
    monkeypatch.setattr(engine.shutil, "which", lambda name: name in made.programs or None)
    return made


def test_an_engine_that_was_started_before_it_was_configured_reads_its_configuration(
    machine: Machine,
) -> None:
    machine.programs = {"runsc"}
    engine.register_runsc()
    engine.start()
    assert set(machine.runtimes) == {"runc", "runsc"}


def test_an_engine_without_a_runtime_that_it_is_configured_with_is_not_up(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.programs = {"runsc"}
    engine.register_runsc()
    monkeypatch.setattr(engine, "run", lambda *_command: "")
    with pytest.raises(engine.Unable, match="configured with"):
        engine.start()


@pytest.mark.parametrize(
    ("packages", "has_client"),
    [({"docker-cli", "runsc", "mmdebstrap"}, True), ({"runsc", "mmdebstrap"}, False)],
    ids=["a package of its own", "part of the engine's"],
)
def test_the_docker_program_is_installed_where_it_is_a_package_of_its_own(
    machine: Machine, packages: set[str], has_client: bool
) -> None:
    machine.packages = packages
    engine.install()
    (installed,) = (line for line in machine.ran if line.startswith("apt-get install"))
    assert ("docker-cli" in installed.split()) is has_client
    assert "docker.io" in installed.split()


def test_a_configuration_that_cannot_be_read_is_told_and_left(machine: Machine) -> None:
    machine.programs = {"runsc"}
    engine.CONFIGURATION.write_text("{not JSON")
    with pytest.raises(engine.Unable, match="not valid JSON"):
        engine.register_runsc()
    assert engine.CONFIGURATION.read_text() == "{not JSON"
