"""Jupyter's own programs in an environment of theirs, with our kernelspecs installed."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import kernelclient
from .environments import package, python_with
from .served import environment

TIMEOUT_S = 240
KERNELSPEC = "sandbox-offline"


@dataclass(frozen=True)
class Jupyter:
    """An environment with Jupyter's programs and this tree's package, as a person has it."""

    python: Path
    folder: Path
    state: Path

    @classmethod
    def made(cls, folder: Path) -> Jupyter:
        """One with a home, kernelspecs and state of its own, in an empty folder."""
        (folder / "home").mkdir()
        return cls(python_with("provisioner"), folder, folder / "state")

    @property
    def env(self) -> dict[str, str]:
        """The environment of its programs."""
        own = {
            "HOME": str(self.folder / "home"),
            "JUPYTER_DATA_DIR": str(self.folder / "jupyter"),
            "IPYTHONDIR": str(self.folder / "ipython"),
            "PYTHONPATH": str(package()),
        }
        known = {name: os.environ[name] for name in ("PATH", "DOCKER_HOST") if name in os.environ}
        ours = environment(self.state)
        return known | own | {name: ours[name] for name in ours if name.startswith("SANDBOX_")}

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a module of Python to its end."""
        return subprocess.run(
            [str(self.python), "-P", *words],
            env=self.env | env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a module of Python; its standard output can be read."""
        return subprocess.Popen(
            [str(self.python), "-P", *words],
            env=self.env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def install(self, *words: str, **env: str) -> None:
        """Install a kernelspec."""
        done = self.run("-m", "sandbox", "kernelspec", "install", *words, **env)
        assert done.returncode == 0, done.stderr

    def spec(self, name: str, config: dict[str, Any], **more: Any) -> None:
        """Write a kernelspec as a person might, for the provisioner to judge."""
        folder = self.folder / "jupyter/kernels" / name
        folder.mkdir(parents=True)
        provisioner = {"provisioner_name": "sandbox", "config": config}
        spec = {"argv": ["false"], "display_name": name, "language": "python"}
        spec |= {"metadata": {"kernel_provisioner": provisioner}, **more}
        (folder / "kernel.json").write_text(json.dumps(spec))

    def tell(self, work: str, *words: str) -> Any:
        """What a function of ``kernelclient`` returns there."""
        done = self.run(kernelclient.__file__, work, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)
