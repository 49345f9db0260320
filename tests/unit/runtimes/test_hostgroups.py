"""What the host's control groups hold a container's main process to."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.runtimes.hostgroups import held

ID = "5e1f" * 16
PID = 4711
SECOND = f"0::/system.slice/docker-{ID}.scope\n"
FIRST = f"9:name=systemd:/docker/{ID}\n8:pids:/docker/{ID}\n4:memory:/docker/{ID}\n0::/\n"


class Host:
    """A root folder with a process and control groups."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def process(self, cgroup: str, cmdline: str = "/sbin/docker-init\0") -> None:
        self.write(f"proc/{PID}/cgroup", cgroup)
        self.write(f"proc/{PID}/cmdline", cmdline)

    def group(self, path: str, memory: str, pids: str) -> None:
        self.write(f"sys/fs/cgroup/{path}/memory.max", f"{memory}\n")
        self.write(f"sys/fs/cgroup/{path}/pids.max", f"{pids}\n")

    def first(self, path: str, memory: str, pids: str) -> None:
        self.write(f"sys/fs/cgroup/memory/{path}/memory.limit_in_bytes", f"{memory}\n")
        self.write(f"sys/fs/cgroup/pids/{path}/pids.max", f"{pids}\n")

    def held(self):
        return held(PID, ID, self.root)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_the_limits_of_the_second_version_are_those_of_the_scope(host: Host) -> None:
    host.process(SECOND)
    host.group("system.slice", "max", "max")
    host.group(f"system.slice/docker-{ID}.scope", "1024", "64")
    assert host.held() == {"memory": 1024, "pids": 64}


def test_the_limits_of_the_first_version_are_those_of_each_controllers_group(host: Host) -> None:
    host.process(FIRST)
    host.first("docker", str(2**63 - 4096), "max")
    host.first(f"docker/{ID}", "2048", "32")
    assert host.held() == {"memory": 2048, "pids": 32}


def test_a_tighter_limit_above_counts_and_none_at_all_is_told(host: Host) -> None:
    host.process(SECOND)
    host.group("system.slice", "512", "max")
    host.group(f"system.slice/docker-{ID}.scope", "1024", "max")
    assert host.held() == {"memory": 512, "pids": None}


def test_a_runtime_that_leaves_its_process_outside_the_group_is_found_out(host: Host) -> None:
    host.process("0::/\n", f"runsc-sandbox\0boot\0{ID}\0")
    host.group(".", "max", "max")
    assert host.held() == {"memory": None, "pids": None}


@pytest.mark.parametrize(
    ("cgroup", "cmdline"),
    [("0::/user.slice\n", "bash\0"), ("nonsense " + ID, "x"), ("8:pids:/docker/" + ID, "x")],
    ids=["another process", "no groups", "no group of memory"],
)
def test_what_cannot_be_known_is_not_told(host: Host, cgroup: str, cmdline: str) -> None:
    host.process(cgroup, cmdline)
    host.group("user.slice", "1", "1")
    host.first(f"docker/{ID}", "1", "1")
    assert host.held() is None


def test_a_process_that_is_not_here_is_not_known(host: Host) -> None:
    assert host.held() is None
