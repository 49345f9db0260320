"""An engine of a test's own beside the machine's, with folders and a network of its own.

It is the same program, and may be stopped, killed and started again without harm to anybody else.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.container import images
from sandbox.policy import load

START_TIMEOUT_S = 60
IMAGE = images.reference(load().get("offline").image)


class OwnEngine:
    """One engine, made and removed by :func:`own_engine`.

    Args:
        folder: Its folder.
        env: More of its environment.
    """

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/sock"
        self._env = {**os.environ, **env}
        self._process: subprocess.Popen[bytes] | None = None
        self.set({})

    def set(self, settings: Mapping[str, Any]) -> None:
        """Its settings from the next start on."""
        (self.folder / "daemon.json").write_text(json.dumps(settings))

    def start(self) -> None:
        """Start it and wait until it answers."""
        folder = self.folder
        # In a network of its own: an engine without a bridge takes down the bridge of any other.
        words = [
            *("unshare", "--net", "dockerd", "--host", self.url, "--data-root", folder / "data"),
            *("--exec-root", folder / "exec", "--pidfile", folder / "pid", "--bridge", "none"),
            *("--config-file", folder / "daemon.json", "--iptables=false", "--ip-masq=false"),
        ]
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                words, env=self._env, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.docker("info", check=False).returncode:
            if time.monotonic() > deadline or self._process.poll() is not None:
                log_text = (folder / "log").read_text(errors="replace")
                raise AssertionError(f"no engine of our own:\n{log_text}")
            time.sleep(0.1)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop it, or with another signal kill it."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(START_TIMEOUT_S)
        self._process = None
        if number == signal.SIGKILL:
            self._wait_for_containerd()

    def _wait_for_containerd(self) -> None:
        """It goes with an engine that is killed; the next one takes it for alive until it has."""
        file = self.folder / "exec/containerd/containerd.pid"
        process = Path("/proc", file.read_text()) if file.exists() else None
        deadline = time.monotonic() + START_TIMEOUT_S
        while process is not None and process.exists():
            assert time.monotonic() < deadline, "containerd outlives its engine"
            time.sleep(0.02)

    def docker(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of ``docker`` on it."""
        command = ["docker", "--host", self.url, *words]
        return subprocess.run(command, capture_output=True, text=True, check=check)

    def load_image(self) -> None:
        """Give it the image of Python, from the machine's engine."""
        with subprocess.Popen(["docker", "save", IMAGE], stdout=subprocess.PIPE) as saving:
            command = ["docker", "--host", self.url, "load"]
            loaded = subprocess.run(command, stdin=saving.stdout, capture_output=True, check=False)
        assert saving.returncode == 0
        assert loaded.returncode == 0, loaded.stderr

    def remove(self) -> None:
        """End it with all its containers, and remove its folder."""
        if self._process is None:
            self.start()  # whoever ended it may have left containers
        for container in self.docker("ps", "--all", "--quiet").stdout.split():
            self.docker("rm", "--force", container)
        self.end()
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            if (place := line.split()[1]).startswith(f"{self.folder}/"):  # of one that was killed
                subprocess.run(["umount", place], check=True)
        shutil.rmtree(self.folder)


@contextmanager
def own_engine(folder: Path, *, env: Mapping[str, str] | None = None) -> Iterator[OwnEngine]:
    """An engine that runs, until the end of the block.

    Args:
        folder: Made for it; its name is short, as the path of a socket has at most 107 bytes.
        env: More of its environment.
    """
    folder.mkdir(parents=True, exist_ok=True)
    engine = OwnEngine(folder, env or {})
    try:
        engine.start()
        engine.load_image()
        yield engine
    finally:
        engine.remove()
