"""Attacks by way of Jupyter's kernels in sandboxes: by a notebook, its folder, and a neighbour."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import InvalidRequest
from sandbox.jupyter.connection import Connection
from sandbox.jupyter.signing import Signer

from ..support import nbclientrun
from ..support.bridged import bridged, connection_info
from ..support.leftovers import left_of
from ..support.provisioned import KERNELSPEC, Jupyter


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Jupyter:
    made = Jupyter.made(tmp_path_factory.mktemp("jupyter"))
    made.install("--policy", "offline")
    return made


def run(jupyter: Jupyter, folder: Path, *cells: str) -> tuple[Any, list[str]]:
    """A notebook run by nbclient from its folder: how that ended, and the texts of its cells."""
    code = [
        {"cell_type": "code", "id": f"c{n}", "metadata": {}, "source": cell, "outputs": []}
        | {"execution_count": None}
        for n, cell in enumerate(cells)
    ]
    source, target = folder / "n.ipynb", folder / "out.ipynb"
    source.write_text(
        json.dumps({"cells": code, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    )
    done = jupyter.run(nbclientrun.__file__, str(source), str(target), KERNELSPEC)
    if not target.exists():
        return done, []
    found = json.loads(target.read_text())["cells"]
    outputs = [[each.get("text", "") for each in cell["outputs"]] for cell in found]
    return done, ["".join("".join(text) for text in cell) for cell in outputs]


@pytest.mark.anyio
async def test_a_neighbour_without_the_key_says_nothing_to_a_kernel() -> None:
    """Invariant 6: other users of this machine reach the ports, which is all that they can do."""
    async with bridged() as bridge, bridge.client() as client:
        for key in (b"", b"another", b"k" * 64):
            signer = Signer(key or b"x", "hmac-sha256")
            await client.ask("shell", "execute_request", signer, code="stolen")
            await client.ask("control", "shutdown_request", signer, restart=False)
        for frames in ([b""], [b"<IDS|MSG>"], [b"<IDS|MSG>", b"", b"{}", b"{}", b"{}", b"{}"]):
            await client.sockets["shell"].send_multipart(frames)
        await client.ask("shell", "execute_request", code="honest")
        assert (await bridge.kernel.got()).content["code"] == "honest"
        assert len(bridge.kernel.sent) == 1
        assert bridge.ended == []


@pytest.mark.parametrize("change", [{"ip": "0.0.0.0"}, {"ip": "192.0.2.7"}, {"key": ""}])  # noqa: S104
def test_no_connection_file_opens_a_kernel_to_others(change: dict[str, str]) -> None:
    """Invariant 6: neither other machines, nor whoever has no key."""
    with pytest.raises(InvalidRequest):
        Connection.of(connection_info(**change))


FORGED = """
import json
kernel = get_ipython().kernel
kernel.session.send(kernel.iopub_socket, 'status', {'execution_state': 'dead'}, parent={})
kernel.session.send(kernel.iopub_socket, 'shutdown_reply', {'status': 'ok', 'restart': False})
print('forged')
"""


def test_a_kernel_that_says_that_it_is_dead_is_not_believed(
    jupyter: Jupyter, tmp_path: Path
) -> None:
    """Invariant 8: what a kernel's end is, the supervisor says, and not its code."""
    done, texts = run(jupyter, tmp_path, FORGED, "print(6 * 7)")
    assert done.returncode == 0, done.stderr
    assert texts == ["forged\n", "42\n"]


def test_nothing_is_imported_from_the_folder_of_a_notebook(
    jupyter: Jupyter, tmp_path: Path
) -> None:
    """Invariant 2: what lies beside an untrusted notebook does not run on this machine."""
    for name in ("sandbox", "zmq", "anyio", "json", "docker", "sitecustomize"):
        marking = f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\n"
        (tmp_path / f"{name}.py").write_text(marking)
    (tmp_path / "config.yaml").write_text("default_policy: absent\n")
    done, texts = run(jupyter, tmp_path, "print(6 * 7)")
    assert done.returncode == 0, done.stderr
    assert texts == ["42\n"]
    assert not (tmp_path / "ran").exists()


def test_a_notebook_does_not_see_its_folder(jupyter: Jupyter, tmp_path: Path) -> None:
    """Invariant 2: nothing of the host is inside, and no variable of the client's."""
    looking = (
        "import os\nprint(os.getcwd(), os.path.exists({!r}), 'SANDBOX_STATE_DIR' in os.environ)"
    )
    _, texts = run(jupyter, tmp_path, looking.format(str(tmp_path)))
    assert texts == ["/workspace False False\n"]


@pytest.mark.parametrize("config", [{"polcy": "offline"}, {"policy": "absent"}, {"policy": 7}])
def test_a_kernelspec_that_is_wrong_starts_nothing(
    jupyter: Jupyter, tmp_path: Path, config: dict[str, Any]
) -> None:
    """Invariant 10: no key that is not known, and no policy that is not there, means the default
    one, or a kernel outside of a sandbox."""
    name = f"wrong-{abs(hash(str(config)))}"
    jupyter.spec(name, config)
    told = jupyter.tell("starts", name)
    assert told["text"]
    assert not told["has_kernel"]
    assert left_of(jupyter.state) == []
