from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BEGIN = f"""
import json, sys
sys.path.insert(0, {str(ROOT)!r})
from sandbox.supervisor.spared import spare
"""


def told_by(program: str) -> object:
    """What a Python of its own prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", BEGIN + program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout)


def test_a_supervisor_imports_no_client_of_kernels() -> None:
    told = told_by(
        "spare()\n"
        "import sandbox.supervisor.ipython\n"
        "names = ('jupyter_client.manager', 'dateutil', 'ipykernel.kernelapp')\n"
        "print(json.dumps([name for name in names if name in sys.modules]))"
    )
    assert told == []


@pytest.mark.parametrize(
    "wanted",
    [
        "__import__('jupyter_client').KernelManager.__module__",
        "'KernelManager' in dir(__import__('jupyter_client'))",
        "str(__import__('jupyter_client').__version__) != ''",
        "__import__('ipykernel.connect').connect.connect_qtconsole.__module__",
        "__import__('jupyter_client.jsonutil').jsonutil"
        ".parse_date('2020-01-01T00:00:00+00:00').isoformat()",
        "__import__('dateutil.parser').parser.isoparse('2020-01-01').isoformat()",
        "sorted(__import__('ipykernel.connect').connect.__all__)",
        "hasattr(__import__('jupyter_client'), 'no_such_name')",
    ],
)
def test_what_is_spared_is_there_when_it_is_asked_for(wanted: str) -> None:
    told = f"print(json.dumps({wanted}))"
    assert told_by(f"spare()\n{told}") == told_by(told)


def test_modules_that_are_not_as_they_are_known_are_imported_as_usual() -> None:
    told = told_by(
        "from sandbox.supervisor import spared\n"
        "spared._CONNECTING = ()\n"
        "spare()\n"
        "import ipykernel.connect, ipykernel.zmqshell\n"
        "print(json.dumps(ipykernel.get_connection_info.__module__))"
    )
    assert told == "ipykernel.connect"
