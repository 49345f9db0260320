"""From a policy's mounts and the operator's roots to folders of the host that are safe to mount.

``sources`` is pure and says which folder a rule means. ``look`` then walks there without following
a link and refuses a folder whose path a sandbox could change, and says which directory it is: the
probe must find that very directory inside, so a path that was swapped between the look and the
mount is noticed, as is a controller that sees other files than its engine. ``refuse_sockets`` looks
for what leads out of a folder.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Mapping

import anyio
import anyio.to_thread

from sandbox.container import sockets
from sandbox.container.identity import MAX_UID, MIN_UID
from sandbox.container.roots import Root, related
from sandbox.container.spec import Mount
from sandbox.errors import ConfigError, NotPermitted
from sandbox.nofollow import Step, walk
from sandbox.policy import Policy

Identity = tuple[int, int]
SEARCH_S = 2 * sockets.MAX_S
"""How long a search is waited for: a file system that hangs bounds nothing by itself."""
MAX_SEARCHES = 32
"""Of one folder at once, also those that nobody waits for any more."""

_searches: dict[str, threading.BoundedSemaphore] = {}


def sources(policy: Policy, roots: tuple[Root, ...], engine_data: str = "") -> tuple[Mount, ...]:
    """The mounts that a policy means, by name alone; the engine's own directory is empty when it is
    not known.

    Raises:
        ConfigError: The operator has no such root, or it is in the engine's directory.
        NotPermitted: The root may not be used so.
    """
    known = {root.name: root for root in roots}
    return tuple(
        Mount(
            source=_source(policy, index, known, engine_data),
            target=rule.target,
            read_only=rule.read_only,
        )
        for index, rule in enumerate(policy.mounts)
    )


def _source(policy: Policy, index: int, known: dict[str, Root], engine_data: str) -> str:
    rule = policy.mounts[index]
    key = f"mounts[{index}] of the policy {policy.name!r}"
    root = known.get(rule.root)
    if root is None:
        raise ConfigError(
            f"{key} names the root {rule.root!r}, which this controller does not have.",
            remedy=f"The operator names it in the setting roots: {{{rule.root}: /a/folder}}.",
        )
    if engine_data and related(root.path, engine_data):
        raise ConfigError(
            f"The root {root.name!r} ({root.path}) is, holds or is within {engine_data}, the "
            "engine's own directory.",
            remedy="Name another folder in the setting roots.",
        )
    if root.writable and rule.path:
        raise NotPermitted(
            f"{key} mounts a folder below the root {root.name!r}, to which sandboxes may write: "
            "they could put another in its place.",
            remedy="Make that folder a root of its own.",
        )
    if not rule.read_only and not root.writable:
        raise NotPermitted(
            f"{key} wants to write to the root {root.name!r}, which is read-only.",
            remedy="Write read_only: true, or let the operator make the root writable.",
        )
    return f"{root.path}/{rule.path}".rstrip("/")


async def look(mounts: tuple[Mount, ...], roots: tuple[Root, ...]) -> dict[str, Identity]:
    """See which directory each mount leads to: its device and inode, by its target.

    Raises:
        ConfigError: A folder is not there, is behind a symbolic link, or a sandbox could change
            its path.
    """
    if not mounts:
        return {}
    return await anyio.to_thread.run_sync(_look, mounts, roots, abandon_on_cancel=True)


def searched(policy: Policy, mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """Those of a policy's mounts in which sockets and FIFOs are refused."""
    pairs = zip(policy.mounts, mounts, strict=True)
    return tuple(mount for rule, mount in pairs if rule.sockets == "refuse")


async def search(mount: Mount, identity: Identity | None = None) -> sockets.Search:
    """Look for a socket or a FIFO in a folder, which must be of that identity, for a bounded time.

    In a folder that is written to, those that sandboxes made are passed over: what their sessions
    share there is theirs to share, and none must be able to end the others by making one.
    """
    strangers = range(0) if mount.read_only else range(MIN_UID, MAX_UID + 1)
    free = _searches.setdefault(mount.source, threading.BoundedSemaphore(MAX_SEARCHES))

    def run() -> sockets.Search:
        if not free.acquire(blocking=False):
            return silent
        try:
            return sockets.search(mount.source, identity=identity, strangers=strangers)
        except OSError as exc:
            return sockets.Search(unsearched=f"it cannot be opened: {exc.strerror}")
        finally:
            free.release()

    silent = sockets.Search(unsearched=f"its file system does not answer within {SEARCH_S:g} s")
    with anyio.move_on_after(SEARCH_S):
        return await anyio.to_thread.run_sync(run, abandon_on_cancel=True)
    return silent


async def refuse_sockets(mounts: tuple[Mount, ...], directories: Mapping[str, Identity]) -> None:
    """Refuse the ``searched`` folders in which something leads out to the host's programs.

    Raises:
        ConfigError: There is a socket or a FIFO in one, or nobody can say that there is none.
    """
    for mount in mounts:
        came = await search(mount, directories[mount.target])
        if came.found:
            raise ConfigError(
                f"The folder {mount.source} is not mounted: {came.found} in it leads to a program "
                "of the host.",
                remedy="Put it elsewhere, or write sockets: allow at this mount of the policy.",
            )
        if came.unsearched:
            raise ConfigError(
                f"The folder {mount.source} is not mounted: it was searched for sockets and FIFOs, "
                f"and {came.unsearched}.",
                remedy="Mount a smaller folder, or write sockets: allow at this mount of the "
                "policy.",
            )


def _look(mounts: tuple[Mount, ...], roots: tuple[Root, ...]) -> dict[str, Identity]:
    shared = {root.path: _walk(root.path)[-1].identity for root in roots if root.writable}
    found: dict[str, Identity] = {}
    for mount in mounts:
        steps = _walk(mount.source)
        path = ""
        for place, step in enumerate(steps):
            path = "/" if place == 0 else f"{path.rstrip('/')}/{step.name}"
            is_shared = mount.source in shared and place == len(steps) - 1
            if not is_shared:
                _refuse_if_exposed(mount, path, step, frozenset(shared.values()))
        if not mount.read_only:
            _refuse_if_bare(mount)
        found[mount.target] = steps[-1].identity
    return found


def _walk(path: str) -> list[Step]:
    try:
        steps = walk(path)
    except OSError as exc:
        raise ConfigError(
            f"The folder {path}, which is to be mounted, cannot be used: {exc.strerror}.",
            remedy="Make it, or correct the setting roots or the policy. A controller in a "
            "container must see it at the same path: mount it there read-only.",
        ) from exc
    if stat.S_ISLNK(steps[-1].mode):
        raise ConfigError(
            f"The folder {path} is not mounted: {steps[-1].name!r} in it is a symbolic link.",
            remedy="Name the folder that it leads to.",
        )
    if not stat.S_ISDIR(steps[-1].mode):
        raise ConfigError(
            f"{path} is not mounted: {steps[-1].name!r} in it is not a directory.",
            remedy="Only folders can be mounted; put the file into one.",
        )
    return steps


def _refuse_if_exposed(mount: Mount, path: str, step: Step, shared: frozenset[Identity]) -> None:
    """Refuse a directory in which, or in place of which, a sandbox could put something."""
    if _is_a_sandboxs(step.uid):
        reason = f"belongs to uid {step.uid}, which sandboxes may have"
    elif step.mode & stat.S_IWOTH and not step.mode & stat.S_ISVTX:
        reason = "can be written to by everybody"
    elif step.mode & stat.S_IWGRP and _is_a_sandboxs(step.gid):
        reason = f"can be written to by gid {step.gid}, which sandboxes may have"
    elif step.identity in shared:
        reason = "is a root to which sandboxes may write"
    else:
        return
    raise ConfigError(
        f"The folder {mount.source} is not mounted: {path} {reason}.",
        remedy="Change its owner or its mode (chmod o-w), or name another folder.",
    )


def _refuse_if_bare(mount: Mount) -> None:
    """Refuse a folder to be written to on a filesystem with set-id programs and devices.

    An engine applies its options to a bind mount only together with ``ro``; one that is written to
    has those of the mount that the folder is on (docs/adr/0009).
    """
    flags = os.statvfs(mount.source).f_flag
    if not (flags & os.ST_NOSUID and flags & os.ST_NODEV):
        raise ConfigError(
            f"The folder {mount.source} is not mounted to be written to: it is on a filesystem "
            "without nosuid and nodev.",
            remedy="Give it a mount of its own with these options, which also bounds its size.",
        )


def _is_a_sandboxs(number: int) -> bool:
    return MIN_UID <= number <= MAX_UID
