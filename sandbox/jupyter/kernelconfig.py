"""What a kernelspec says of its sandbox: the ``config`` of its kernel provisioner."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

MAX_TEXT = 4096
MAX_WITH = 100
MAX_BYTES = 64 * 1024
"""As JSON: a bridge is told all of it at once, which has to fit into a socket's buffer."""


@dataclass(frozen=True, slots=True)
class KernelConfig:
    """Which sandbox a kernelspec's kernels get; made by :meth:`of`, which checks."""

    policy: str = ""
    """Its policy; empty: the default one."""
    kernel: str = "python3"
    """The kernel inside, by the name of its kernelspec there."""
    url: str = ""
    """Of a served controller; empty: each kernel has a controller of its own."""
    token_file: str = ""
    """The file of its token; empty: the local token, if it is this machine's."""
    with_: tuple[str, ...] = ()
    """Files and folders of this machine that are copied into the workspace: ``with``."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> KernelConfig:
        """Read it.

        Raises:
            ValueError: A key is not known, or a value makes no sense. Nothing is guessed: a
                policy that is spelt wrong must not mean the default one.
        """
        values: dict[str, Any] = {}
        for key, value in config.items():
            if key == "with":
                values["with_"] = _paths(value)
            elif key in ("policy", "kernel", "url", "token_file"):
                if not isinstance(value, str) or len(value) > MAX_TEXT:
                    raise ValueError(f"{key} must be a text.")
                values[key] = value
            else:
                raise ValueError(
                    f"{key!r:.80} is not known; it may have policy, kernel, url, token_file, with."
                )
        found = cls(**values)
        if not found.kernel:
            raise ValueError("kernel is empty; leave it out for python3.")
        if found.token_file and not found.url:
            raise ValueError("token_file goes with url.")
        if len(json.dumps(found.data())) > MAX_BYTES:
            raise ValueError(f"It is longer than {MAX_BYTES:,} bytes.")
        return found

    def data(self) -> dict[str, Any]:
        """The same as a kernelspec has it, without what is as it would be anyhow."""
        default = asdict(KernelConfig())
        said = {key: value for key, value in asdict(self).items() if value != default[key]}
        if paths := said.pop("with_", None):
            said["with"] = [*paths]
        return said


def _paths(value: object) -> tuple[str, ...]:
    given = cast("list[object]", value) if isinstance(value, list | tuple) else None
    if given is None or len(given) > MAX_WITH:
        raise ValueError(f"with must be a list of at most {MAX_WITH} paths.")
    paths: list[str] = []
    for each in given:
        if not isinstance(each, str) or not each.startswith("/") or len(each) > MAX_TEXT:
            raise ValueError("with must be a list of absolute paths.")
        paths.append(each)
    return tuple(paths)
