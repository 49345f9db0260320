"""What a supervisor says of its container: hostile input, so every field has a form and a bound."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictBool, StrictInt

from sandbox.values import Told

Name = Annotated[str, Field(max_length=4096)]


class MeasuredMount(Told):
    """A line of the container's mount table: ``options`` are its own and its filesystem's."""

    target: Name
    fstype: Name
    options: Annotated[tuple[Name, ...], Field(max_length=256)]


class Place(Told):
    """A directory that was looked at: name, mode, uid, gid, device and inode of each part of its
    path, and what became of the try to make a file in it (an errno's name, or ``allowed``)."""

    steps: Annotated[
        tuple[tuple[Name, StrictInt, StrictInt, StrictInt, StrictInt, StrictInt], ...],
        Field(max_length=128),
    ]
    write: Name


Mask = Annotated[str, Field(pattern=r"\A[0-9a-f]{1,16}\z")]


class Capabilities(Told):
    """The five sets of capabilities, as hexadecimal masks."""

    effective: Mask
    permitted: Mask
    bounding: Mask
    inheritable: Mask
    ambient: Mask


class Facts(Told):
    """What the supervisor measured, see ``docs/link.md``. None: not visible from inside."""

    uid: StrictInt
    gid: StrictInt
    groups: Annotated[tuple[StrictInt, ...], Field(max_length=1024)]
    capabilities: Capabilities
    no_new_privs: StrictBool
    seccomp_mode: StrictInt
    interfaces: Annotated[tuple[Name, ...], Field(max_length=1024)]
    routes: Annotated[tuple[Name, ...], Field(max_length=1024)]
    resolvers: Annotated[tuple[Name, ...], Field(max_length=1024)]
    root_read_only: StrictBool
    writable: Annotated[tuple[Name, ...], Field(max_length=1024)]
    devices: Annotated[tuple[Name, ...], Field(max_length=1024)]
    mounts: Annotated[tuple[MeasuredMount, ...], Field(max_length=1024)]
    places: Annotated[dict[Name, Place], Field(max_length=64)]
    memory_limit: StrictInt | None
    pids_limit: StrictInt | None
    disk_read: StrictInt | None
    disk_write: StrictInt | None
    sysctls: Annotated[dict[Name, Name | None], Field(max_length=64)]
    nproc: StrictInt
    nofile: StrictInt
    core: StrictInt
    fsize: StrictInt
    memlock: StrictInt
    msgqueue: StrictInt
    forbidden: dict[Name, Name]
    hostname: Name
    environment: Annotated[tuple[Name, ...], Field(max_length=4096)]
