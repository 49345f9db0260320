"""The provisioner before a bridge that is played; with real ones: tests/integration."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase

from sandbox.jupyter import provisioner as its_module
from sandbox.jupyter.bridgeprocess import BridgeProcess
from sandbox.jupyter.connection import CHANNELS
from sandbox.jupyter.provisioner import SandboxProvisioner

ROOT = Path(__file__).parents[3]


def test_the_entry_point_names_the_provisioner() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    places = project["entry-points"]["jupyter_client.kernel_provisioners"]
    module, _, name = places["sandbox"].partition(":")
    assert getattr(import_module(module), name) is SandboxProvisioner
    assert issubclass(SandboxProvisioner, KernelProvisionerBase)


def made(**config: Any) -> Any:
    spec = KernelSpec(argv=["false"], display_name="n", language="python")
    return SandboxProvisioner(kernel_id="k", kernel_spec=spec, parent=None, **config)


def test_a_key_that_is_not_known_is_no_policy_at_all() -> None:
    with pytest.raises(ValueError, match="polcy"):
        made(polcy="locked")


@pytest.mark.anyio
async def test_without_a_kernel_there_is_nothing_to_poll_or_to_end() -> None:
    provisioner = made(policy="offline")
    assert not provisioner.has_process
    assert await provisioner.poll() == 0
    assert await provisioner.wait() == 0
    await provisioner.send_signal(9)
    await provisioner.kill()
    await provisioner.terminate()
    await provisioner.cleanup()
    assert provisioner.resolve_path("/etc/passwd") is None


@pytest.mark.anyio
async def test_what_it_knows_is_handed_on() -> None:
    provisioner, other = made(policy="offline"), made(policy="offline")
    provisioner.connection_info, provisioner.session_id = {"shell_port": 1}, "s-1"
    await other.load_provisioner_info(await provisioner.get_provisioner_info())
    assert (other.session_id, other.connection_info) == ("s-1", {"shell_port": 1})


@pytest.mark.anyio
async def test_a_bridge_that_does_not_answer_any_more_is_killed_with_its_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("KILL_WAIT_S", "END_TIMEOUT_S"):
        monkeypatch.setattr(its_module, name, 0.05)
    provisioner, bridge = made(policy="offline"), BridgeProcess(os.environ)
    provisioner._bridge, provisioner._has_kernel = bridge, True
    os.kill(bridge.pid, signal.SIGSTOP)
    await provisioner.kill()
    with anyio.fail_after(10):
        assert await provisioner.wait() == -signal.SIGKILL
    assert not provisioner.has_process


HANGING = """
import anyio
from contextlib import asynccontextmanager
from sandbox.jupyter import bridge, localkernel

@asynccontextmanager
async def hanging(config):
    print("opened", flush=True)
    with anyio.CancelScope(shield=True):
        await anyio.sleep_forever()
    yield

localkernel.local_kernel, bridge.END_S = hanging, 1
bridge.main()
"""


def test_a_bridge_that_hangs_in_its_end_is_ended_when_its_client_has_gone(tmp_path: Path) -> None:
    ports = {f"{name}_port": n for n, name in enumerate(CHANNELS, start=1)}
    connection = {"transport": "ipc", "ip": str(tmp_path / "k"), "key": "k", **ports}
    order = {"do": "start", "config": {}, "connection": connection}
    ours, theirs = socket.socketpair()
    with ours, theirs:
        argv = [sys.executable, "-c", HANGING, str(theirs.fileno())]
        bridge = subprocess.Popen(argv, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE)
        theirs.close()
        ours.sendall(json.dumps(order).encode() + b"\n")
        assert bridge.stdout is not None
        with bridge.stdout as said:
            assert said.readline() == b"opened\n"
            ours.close()
            assert bridge.wait(60) == -signal.SIGALRM


@pytest.mark.parametrize(
    ("words", "said"),
    [((), "Nothing was run"), (("99",), "Bad file descriptor")],
    ids=["a client without provisioners", "an error that nobody expected"],
)
def test_a_bridge_that_cannot_begin_says_why(words: tuple[str, ...], said: str) -> None:
    argv = [sys.executable, "-P", "-m", "sandbox.jupyter.bridge", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert said in done.stderr
