"""Find a Docker Engine that answers, or install and start one; then build the sandbox images on it.

Where neither can be done here, one sentence says what a person must do.
A running engine is left as it is. One that this script starts also gets gVisor's `runsc` as a
second runtime. May be stopped at any moment and run again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from sandbox.errors import SandboxError
from sandbox.runtimes.docker import build
from sandbox.runtimes.docker.endpoint import LOCAL_SOCKET, find_endpoint

CONFIGURATION = Path("/etc/docker/daemon.json")
LOG = Path("/var/log/dockerd.log")
CGROUPS = Path("/sys/fs/cgroup")
START_TIMEOUT_S = 60
POLL_S = 0.1
RUNSC = {"path": "/usr/bin/runsc", "runtimeArgs": ["--network=none", "--platform=ptrace"]}


class Unable(Exception):
    """This script cannot bring up an engine; the message says what a person must do."""


def main() -> int:
    """Leave an engine that answers and has the images; the exit code is 0 then."""
    try:
        info, reason = answering()
        if info is None:
            install_and_start(reason)
            info, reason = answering()
        if info is None:
            raise Unable(f"Docker Engine was started but does not answer: {reason}")
    except Unable as exc:
        print(f"setup: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if "runsc" not in info["Runtimes"]:
        print(
            "setup: this engine has no runsc runtime, so policies that ask for gVisor are refused "
            "(docs: https://gvisor.dev/docs/user_guide/quick_start/docker/)"
        )
    return build.main()


def answering() -> tuple[dict[str, Any] | None, str]:
    """What the engine says about itself, or None and why it does not."""
    try:
        with closing(build.connect(find_endpoint("", "", os.environ))) as client:
            return client.info(), ""
    except SandboxError as exc:
        return None, exc.message


def install_and_start(reason: str) -> None:
    """Bring up the local engine where this machine and user allow it."""
    if find_endpoint("", "", os.environ).url != LOCAL_SOCKET:
        raise Unable(f"{reason} It is what DOCKER_HOST or the Docker context names.")
    if "may not be used" in reason:
        raise Unable(
            "Docker Engine runs but this user may not use it: add yourself to the group docker "
            "(`sudo usermod -aG docker $USER`, then log in again)."
        )
    if not sys.platform.startswith("linux"):
        raise Unable("install and start Docker Desktop, then run this again.")
    if os.geteuid() != 0:
        verb = "start" if shutil.which("dockerd") else "install and start"
        raise Unable(
            f"{verb} Docker Engine as root (Debian: `sudo apt-get install docker.io && "
            "sudo systemctl start docker`), then run this again."
        )
    if shutil.which("apt-get"):
        install()
        register_runsc()
    elif shutil.which("dockerd") is None:
        raise Unable("install Docker Engine 20.10 or later, then run this again.")
    start()


def install() -> None:
    """Install from Debian packages what of the engine and its companions is missing."""
    wanted = {
        "dockerd": "docker.io",
        "docker": "docker-cli",  # a package of its own from Debian 13 on
        "mmdebstrap": "mmdebstrap",
        "runsc": "runsc",
        "docker-compose": "docker-compose",  # 5 MB with what it needs; compose.yaml is for it
    }
    missing = [package for program, package in wanted.items() if shutil.which(program) is None]
    if not has_systemd() and not cgroups_mounted():
        missing.append("cgroupfs-mount")
    if not missing:
        return
    # What an earlier run was stopped in the middle of.
    run("dpkg", "--configure", "-a")
    run("apt-get", "update", "--quiet=2")
    found = [package for package in missing if package == "docker.io" or available(package)]
    if found:
        print(f"setup: installing {', '.join(found)}", flush=True)
        run("apt-get", "install", "--quiet=2", "--yes", "--no-install-recommends", *found)


def available(package: str) -> bool:
    """Whether apt could install it: not every Debian-like system has all that we can use."""
    told = run("apt-cache", "policy", package)
    return "Candidate: " in told and "Candidate: (none)" not in told


def register_runsc() -> None:
    """Add gVisor to the engine's configuration, keeping all that is there."""
    if shutil.which("runsc") is None:
        return
    settings = _configuration()
    runtimes = settings.setdefault("runtimes", {})
    if "runsc" in runtimes:
        return
    runtimes["runsc"] = RUNSC
    CONFIGURATION.parent.mkdir(parents=True, exist_ok=True)
    partial = CONFIGURATION.with_suffix(".json.new")
    partial.write_text(json.dumps(settings, indent=2) + "\n")
    partial.replace(CONFIGURATION)


def _configuration() -> dict[str, Any]:
    try:
        return json.loads(CONFIGURATION.read_text()) if CONFIGURATION.exists() else {}
    except ValueError as exc:
        raise Unable(f"{CONFIGURATION} is not valid JSON: {exc}") from exc


def start() -> None:
    """Start the engine and wait until it answers."""
    print("setup: starting Docker Engine", flush=True)
    daemon: subprocess.Popen[bytes] | None = None
    if has_systemd():
        # Where the package's installation has started it, it has not read what was added since.
        run("systemctl", "enable", "docker")
        run("systemctl", "reload-or-restart", "docker")
    else:
        if not cgroups_mounted():
            run("cgroupfs-mount")
        with LOG.open("ab") as log:
            # In a session of its own, so that Ctrl-C here or a closing terminal is not for it.
            daemon = subprocess.Popen(
                ["dockerd"],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    deadline = time.monotonic() + START_TIMEOUT_S
    while not is_as_configured():
        # An engine that an earlier, stopped run began to start makes a second one end at once.
        if time.monotonic() > deadline:
            what = "does not answer, or has not the runtimes that it is configured with,"
            raise Unable(f"Docker Engine {what} within {START_TIMEOUT_S} s.{last_words()}")
        if daemon is not None and daemon.poll() is not None and not already_starting():
            raise Unable(f"Docker Engine ended at once.{last_words()}")
        time.sleep(POLL_S)


def is_as_configured() -> bool:
    """Whether the engine answers, and has the runtimes that its configuration names."""
    info, _ = answering()
    return info is not None and set(_configuration().get("runtimes", {})) <= set(info["Runtimes"])


def already_starting() -> bool:
    """Whether another engine's process is there."""
    try:
        pid = int(Path("/var/run/docker.pid").read_text())
    except (OSError, ValueError):
        return False
    return Path(f"/proc/{pid}").exists()


def last_words() -> str:
    """The end of the engine's log."""
    try:
        lines = LOG.read_text(errors="replace").splitlines()[-10:]
    except OSError:
        return ""
    return "\n".join(["", *lines])


def has_systemd() -> bool:
    """Whether systemd runs this machine; sd_booted(3) asks the same way."""
    return Path("/run/systemd/system").is_dir()


def cgroups_mounted() -> bool:
    """Whether control groups are there, of either version."""
    return (CGROUPS / "cgroup.controllers").exists() or (CGROUPS / "memory").is_dir()


def run(*command: str) -> str:
    """Run a program to its end and give its output; a failure ends this script with its reason."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-10:])
        raise Unable(f"`{' '.join(command)}` failed ({done.returncode}):\n{tail}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
