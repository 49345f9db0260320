"""A policy: what one session may be, reach and consume, as a frozen value.

The keys of a policy file are short and have human units (``memory: 1GiB``); the fields here have
their units in their names. :mod:`sandbox.policy.loader` makes these from files, and a container's
labels carry the JSON form, so a session goes on under the policy it was opened with.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from sandbox.errors import PolicyError
from sandbox.policy.access import MAX_MOUNTS, MAX_SECRETS, ApprovePolicy, MountRule, SecretRule
from sandbox.policy.fields import (
    count,
    did_you_mean,
    duration,
    flag,
    items,
    listing,
    module,
    number,
    one_of,
    size,
    wrong,
)
from sandbox.policy.network import NetworkPolicy, none_or_rules
from sandbox.policy.packages import ImagePolicy, named_image
from sandbox.policy.parts import Part, file_key, key
from sandbox.policy.units import DAY, GIB, HOUR, KIB, MIB, MINUTE, TIB, format_duration, format_size

Runtime = Literal["runc", "runsc"]

EVERY_TOOL = "*"
TOOLS = frozenset(
    {
        *("execute_code", "get_execution", "complete_code", "inspect_code"),
        *("list_kernels", "start_kernel", "interrupt_kernel", "restart_kernel", "stop_kernel"),
        *("branch_kernel", "checkpoint_kernel", "rollback_kernel"),
        *("list_checkpoints", "drop_checkpoint"),
        *("run_command", "get_command", "stop_command"),
        *("open_terminal", "write_terminal", "read_terminal", "resize_terminal"),
        *("close_terminal", "list_terminals", "list_files", "read_file", "write_file"),
        *("edit_file", "delete_file", "move_file", "make_directory", "stat_file"),
        *("use_notebook", "list_notebooks", "read_notebook", "restart_notebook"),
        *("unuse_notebook", "run_notebook", "insert_cell", "overwrite_cell_source"),
        *("edit_cell_source", "move_cell", "delete_cell", "clear_cell_output", "read_cell"),
        *("execute_cell", "insert_execute_code_cell", "export_session"),
    }
)
"""The tools that act inside a session. Those that open, list and close sessions are not subject
to a policy: a session that may not be closed would only last longer."""

MAX_PRELOADED = 16

WORKING_MEMORY_BYTES = 128 * MIB
"""What must be left of the memory for processes when every filesystem in memory is full."""


class Limits(Part):
    """What a session may consume."""

    memory_bytes: Annotated[int, size(192 * MIB, TIB), key("memory")] = GIB
    """Of all processes and of all filesystems in memory together; there is no swap."""
    cpus: Annotated[float, number(0.1, 512)] = 1.0
    pids: Annotated[int, count(32, 32768)] = 256
    """Processes and threads together, the supervisor's included."""
    open_files: Annotated[int, count(256, 1048576)] = 1024
    """Descriptors of one process."""
    file_size_bytes: Annotated[int, size(MIB, TIB), key("file_size")] = 512 * MIB
    disk_read_bytes: Annotated[int, size(MIB, TIB), key("disk_read")] = 64 * MIB
    """Read from the host's disk in a second, where the controller knows which disk that is; what
    is in memory is read faster."""
    disk_write_bytes: Annotated[int, size(MIB, TIB), key("disk_write")] = 64 * MIB
    """Written to it in a second."""
    output_bytes: Annotated[int, size(4 * KIB, 16 * MIB), key("output")] = 256 * KIB
    """What is kept of the output of one execution or command: its head and its tail."""
    execution_s: Annotated[int, duration(1, DAY), key("execution")] = 5 * MINUTE
    """The longest that one execution or command may take."""
    idle_s: Annotated[int, duration(MINUTE, 7 * DAY), key("idle")] = 30 * MINUTE
    """How long a session lasts in which nothing happens."""
    freeze_s: Annotated[int, duration(0, 7 * DAY), key("freeze")] = 5 * MINUTE
    """After how long without use a session in which nothing goes on is frozen; its next use lets
    it go on. 0: never."""
    lifetime_s: Annotated[int, duration(MINUTE, 30 * DAY), key("lifetime")] = 8 * HOUR
    """How long a session lasts in any case."""
    sessions_per_principal: Annotated[int, count(1, 1000), key("sessions")] = 4
    kernels: Annotated[int, count(1, 64)] = 4
    terminals: Annotated[int, count(0, 64)] = 4
    processes: Annotated[int, count(1, 64), key("commands")] = 8
    """Commands that run at the same time."""
    checkpoints: Annotated[int, count(0, 30)] = 8
    """Frozen copies of one session's kernels; 0: none can be made."""
    auto_checkpoints: Annotated[int, count(0, 30)] = 3
    """How many of them are kept of those made before the cells of one kernel; 0: none can be."""

    @model_validator(mode="after")
    def _execution_fits(self) -> Limits:
        if self.execution_s > self.lifetime_s:
            raise wrong(
                f"{format_duration(self.execution_s)} is longer than a session may last, "
                f"{format_duration(self.lifetime_s)}",
                "Lower this or raise `limits.lifetime`.",
                at=("execution",),
            )
        return self


class TmpfsPolicy(Part):
    """A filesystem in memory: what it may hold."""

    size_bytes: Annotated[int, size(4 * MIB, TIB), key("size")]
    inodes: Annotated[int, count(256, 16777216)] = 65536


class WorkspacePolicy(TmpfsPolicy):
    """The session's own folder."""

    persistent: Annotated[bool, flag()] = False
    """Whether a session may have a named workspace, whose files come back in a later session."""


class RuntimePolicy(Part):
    """What may run the container."""

    prefer: Annotated[tuple[Annotated[Runtime, one_of("runc", "runsc")], ...], listing()] = (
        "runc",
        "runsc",
    )
    """The first that the engine has, and that proves, is taken; no other."""
    require: Annotated[Literal["any", "gvisor"], one_of("any", "gvisor")] = "any"
    """``gvisor``: ``runsc`` or nothing."""
    seccomp: Annotated[Literal["default"], one_of("default")] = "default"
    """The filter of system calls: a profile of ``policies/seccomp/``."""

    @model_validator(mode="after")
    def _some_is_left(self) -> RuntimePolicy:
        if not self.permitted:
            raise wrong(
                "requires gVisor, and `prefer` does not have `runsc`",
                "Add `runsc` to `prefer`, or leave `prefer` out.",
                at=("require",),
            )
        return self

    @property
    def permitted(self) -> tuple[Runtime, ...]:
        """The runtimes that may be used, the preferred one first."""
        return tuple(r for r in self.prefer if r == "runsc" or self.require == "any")


class PoolPolicy(Part):
    """How many sandboxes are kept ready before a session asks for one, following demand."""

    min: Annotated[int, count(0, 256)] = 0
    """Without any demand."""
    max: Annotated[int, count(0, 256)] = 0
    """0: none; each session's sandbox is made when it is asked for."""

    @model_validator(mode="after")
    def _is_a_range(self) -> PoolPolicy:
        if self.min > self.max:
            raise wrong(
                f"the least, {self.min}, is more than the most, {self.max}",
                f"Write `max: {self.min}` or more, or a smaller `min`.",
                at=("min",),
            )
        return self


class Policy(Part):
    """What one session may be, reach and consume."""

    name: str = Field(pattern=r"\A[a-z0-9-]{1,64}\z")
    """The name of its file; not a key in it."""
    version: Annotated[int, count(1, 1)] = 1
    """Of the format of policies."""
    description: str = Field(default="", max_length=1000)
    extends: str = ""
    """The policy that this one tightens; what that says is already part of this one."""
    image: Annotated[ImagePolicy, BeforeValidator(named_image)] = ImagePolicy()
    """A recipe of ``images/``, and what the policy adds to it."""
    preload: Annotated[
        tuple[Annotated[str, module()], ...], items(MAX_PRELOADED), listing(optional=True)
    ] = ()
    """Modules of the image that every Python kernel starts with, imported once for all of them."""
    runtime: RuntimePolicy = RuntimePolicy()
    limits: Limits = Limits()
    workspace: WorkspacePolicy = WorkspacePolicy(size_bytes=512 * MIB)
    tmp: TmpfsPolicy = TmpfsPolicy(size_bytes=128 * MIB, inodes=16384)
    shm_bytes: Annotated[int, size(MIB, TIB), key("shm")] = 64 * MIB
    mounts: Annotated[tuple[MountRule, ...], items(MAX_MOUNTS)] = ()
    network: Annotated[NetworkPolicy, BeforeValidator(none_or_rules)] = NetworkPolicy()
    secrets: Annotated[tuple[SecretRule, ...], items(MAX_SECRETS)] = ()
    tools: Annotated[tuple[Annotated[str, one_of(EVERY_TOOL, *sorted(TOOLS))], ...], listing()] = (
        EVERY_TOOL,
    )
    approve: ApprovePolicy = ApprovePolicy()
    checkpoint: Annotated[Literal["none", "auto"], one_of("none", "auto")] = "none"
    """``auto``: each session makes a checkpoint before each cell, asked or not."""
    pool: Annotated[PoolPolicy, Field(exclude=True)] = PoolPolicy()
    """No part of what a session is, nor of the digest."""

    @model_validator(mode="after")
    def _memory_fits(self) -> Policy:
        # Pages of a tmpfs count against the container's memory. If the filesystems could use all
        # of it, a full workspace would show as a kernel killed for memory, not as "no space left".
        filled_bytes = self.workspace.size_bytes + self.tmp.size_bytes + self.shm_bytes
        least_bytes = filled_bytes + WORKING_MEMORY_BYTES
        if self.limits.memory_bytes < least_bytes:
            raise wrong(
                f"{format_size(self.limits.memory_bytes)} does not hold workspace, tmp and shm "
                f"({format_size(filled_bytes)} when full) and "
                f"{format_size(WORKING_MEMORY_BYTES)} for processes",
                f"Write at least {format_size(least_bytes)}, or make those smaller.",
                at=("limits", "memory"),
            )
        return self

    @model_validator(mode="after")
    def _has_room_for_checkpoints(self) -> Policy:
        if self.checkpoint == "auto" and not self.keeps_checkpoints:
            raise wrong(
                "`auto` needs some `limits.checkpoints` and `limits.auto_checkpoints`",
                "Raise those, or write `none`.",
                at=("checkpoint",),
            )
        return self

    @model_validator(mode="after")
    def _every_tool_alone(self) -> Policy:
        if EVERY_TOOL in self.tools and len(self.tools) > 1:
            raise wrong(
                f"`{EVERY_TOOL}` already means every tool",
                f"Keep `{EVERY_TOOL}` alone, or only the names.",
                at=("tools",),
            )
        return self

    @model_validator(mode="after")
    def _mounts_are_apart(self) -> Policy:
        for index, mount in enumerate(self.mounts):
            for other in self.mounts[:index]:
                if f"{mount.target}/".startswith(f"{other.target}/") or (
                    f"{other.target}/".startswith(f"{mount.target}/")
                ):
                    raise wrong(
                        f"{mount.target} and {other.target} are the same place or one in the other",
                        "Give each mount a place of its own.",
                        at=("mounts", str(index), "target"),
                    )
        return self

    @model_validator(mode="after")
    def _secrets_fit(self) -> Policy:
        names = [secret.name for secret in self.secrets]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise wrong(f"{twice!r} comes twice", "Keep each secret once.", at=("secrets",))
        held = {secret.name for secret in self.secrets if secret.delivery == "gateway"}
        used = {rule.secret for rule in self.network.allow if rule.secret is not None}
        for index, rule in enumerate(self.network.allow):
            if rule.secret is not None and rule.secret not in held:
                raise wrong(
                    f"{rule.secret!r} is no secret of this policy for the gateway",
                    f"Add `{{name: {rule.secret}, as: gateway}}` to `secrets`.",
                    at=("network", "allow", str(index), "secret"),
                )
        if unused := sorted(held - used):
            raise wrong(
                f"{unused[0]!r} is for the gateway, and no network rule uses it",
                "Name it as `secret` in an allow rule, or deliver it `as: file`.",
                at=("secrets",),
            )
        return self

    @model_validator(mode="after")
    def _approved_tools_exist(self) -> Policy:
        for index, tool in enumerate(self.approve.tools):
            if tool not in TOOLS or not self.allows(tool):
                raise wrong(
                    f"{tool!r} is no tool of this policy",
                    did_you_mean(tool, TOOLS),
                    at=("approve", "tools", str(index)),
                )
        return self

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether any can be made before cells."""
        return bool(self.limits.checkpoints and self.limits.auto_checkpoints)

    @property
    def runtimes(self) -> tuple[Runtime, ...]:
        """What may run the container, the preferred one first."""
        return self.runtime.permitted

    @property
    def build_command(self) -> str:
        """What a person types to build its image."""
        named = f"--policy {self.name}" if self.image.has_additions else self.image.base
        return f"sandbox image build {named}"

    @property
    def asks(self) -> bool:
        """Whether it wants a person asked about anything."""
        return bool(self.approve.tools) or any(rule.ask for rule in self.network.allow)

    def allows(self, tool: str) -> bool:
        """Whether a tool that acts inside a session may be used under this policy."""
        return EVERY_TOOL in self.tools or tool in self.tools

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of all the policy says: equal digests, equal policies."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def __copy__(self) -> Self:
        """What is changed in a copy gives it another digest."""
        copied = super().__copy__()
        vars(copied).pop("digest", None)
        return copied

    def to_json(self) -> str:
        """The policy as canonical JSON, for a label."""
        told = self.model_dump(mode="json")
        # Not where it is as it was before there was this key: so the digest stays the same, too.
        if self.limits.freeze_s == Limits().freeze_s:
            del told["limits"]["freeze_s"]
        return json.dumps(told, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Policy:
        """The policy that :meth:`to_json` wrote.

        Raises:
            PolicyError: It is not a policy of this version.
        """
        try:
            return cls.model_validate_json(text)
        except ValueError as exc:
            raise PolicyError(
                "a stored policy cannot be read", remedy="Close its session and open a new one."
            ) from exc


def describe(policy: Policy) -> dict[str, Any]:
    """The policy in the words of its file, with human units, and its name and digest first."""
    return {"name": policy.name, "digest": policy.digest, **_in_file_words(policy)}


def _in_file_words(model: BaseModel) -> dict[str, Any]:
    return {
        file_key(type(model), name): _in_words(name, getattr(model, name))
        for name in type(model).model_fields
        if not (getattr(model, name) is None and type(model) is not Policy)
    }


def _in_words(name: str, value: Any) -> Any:
    match value:
        case NetworkPolicy() if value == NetworkPolicy():
            return "none"
        case ImagePolicy():
            return value.lists() if value.has_additions else value.base
        case BaseModel():
            return _in_file_words(value)
        case tuple():
            return [_in_words("", each) for each in cast("tuple[Any, ...]", value)]
        case int() if name.endswith("_bytes"):
            return format_size(value)
        case int() if name.endswith("_s"):
            return format_duration(value)
        case _:
            return value
