"""A ``runc`` that does less than it is told: put before the real one in an engine's PATH.

Its folder also holds ``weakening``, the name of what it leaves out, and ``real``, a link to the
real runc. The engine asks for the right thing, and its inspection says the right thing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Bundle = dict[str, Any]


def no_seccomp(bundle: Bundle) -> None:
    del bundle["linux"]["seccomp"]


def lax_seccomp(bundle: Bundle) -> None:
    """A filter is there, as its mode says, and it lets all through but what nobody needs."""
    bundle["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": bundle["linux"]["seccomp"]["architectures"],
        "syscalls": [{"names": ["kexec_load"], "action": "SCMP_ACT_ERRNO"}],
    }


def one_call(bundle: Bundle) -> None:
    """The whole profile, and one call more."""
    bundle["linux"]["seccomp"]["syscalls"].append(
        {"names": ["io_uring_setup"], "action": "SCMP_ACT_ALLOW"}
    )


def capability(bundle: Bundle) -> None:
    bundle["process"]["capabilities"] = {"bounding": ["CAP_NET_RAW"]}


def new_privileges(bundle: Bundle) -> None:
    bundle["process"]["noNewPrivileges"] = False


def writable_root(bundle: Bundle) -> None:
    bundle["root"]["readonly"] = False


def nothing_masked(bundle: Bundle) -> None:
    bundle["linux"]["maskedPaths"] = []


def writable_sysctls(bundle: Bundle) -> None:
    bundle["linux"]["readonlyPaths"] = []


def no_pids_limit(bundle: Bundle) -> None:
    del bundle["linux"]["resources"]["pids"]


def no_memory_limit(bundle: Bundle) -> None:
    del bundle["linux"]["resources"]["memory"]


def host_folder(bundle: Bundle) -> None:
    bundle["mounts"].append(
        {"destination": "/host", "type": "bind", "source": "/etc", "options": ["rbind", "ro"]}
    )


def host_device(bundle: Bundle) -> None:
    device = {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666}
    bundle["linux"]["devices"] = [*(bundle["linux"].get("devices") or []), device]


def unbounded_workspace(bundle: Bundle) -> None:
    (mount,) = (each for each in bundle["mounts"] if each["destination"] == "/workspace")
    mount["options"] = [each for each in mount["options"] if not each.startswith("size=")]


def one_descriptor_more(bundle: Bundle) -> None:
    (limit,) = (each for each in bundle["process"]["rlimits"] if each["type"] == "RLIMIT_NOFILE")
    limit.update(soft=limit["soft"] + 1, hard=limit["hard"] + 1)


def root_group(bundle: Bundle) -> None:
    bundle["process"]["user"]["additionalGids"] = [0]


WEAKENINGS: dict[str, tuple[Callable[[Bundle], None], str]] = {
    "no seccomp filter": (no_seccomp, "seccomp_mode"),
    "a filter that lets all through": (lax_seccomp, "forbidden.unshare"),
    "a filter that lets one call through": (one_call, "forbidden.io_uring_setup"),
    "one capability": (capability, "capabilities.bounding"),
    "new privileges": (new_privileges, "no_new_privs"),
    "a writable root": (writable_root, "root_read_only"),
    "nothing masked": (nothing_masked, "mounts.unmasked"),
    "writable sysctls": (writable_sysctls, "mounts./proc/sys"),
    "no limit of processes": (no_pids_limit, "pids_limit"),
    "no limit of memory": (no_memory_limit, "memory_limit"),
    "a folder of the host": (host_folder, "mounts.unexpected"),
    "a device of the host": (host_device, "devices"),
    "a workspace without a bound": (unbounded_workspace, "mounts./workspace"),
    "one descriptor more": (one_descriptor_more, "nofile"),
    "root's group": (root_group, "groups"),
}
"""What is done to the bundle, and the check that finds it."""


def main() -> None:
    here = Path(sys.argv[0]).parent
    weakening = (here / "weakening").read_text()
    if weakening and "create" in sys.argv:
        path = Path(sys.argv[sys.argv.index("--bundle") + 1]) / "config.json"
        bundle = json.loads(path.read_text())
        WEAKENINGS[weakening][0](bundle)
        path.write_text(json.dumps(bundle))
    os.execv(here / "real", sys.argv)  # noqa: S606  # no shell has a part in it


if __name__ == "__main__":
    main()
