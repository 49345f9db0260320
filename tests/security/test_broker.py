"""Attacks on the broker by a controller that somebody has taken over.

The attacker has the broker's socket, the right uid and every word of the protocol. It wants what
the engine's socket would give: root on the host, other people's containers, a weaker sandbox.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import docker
import pytest
from docker.models.containers import Container

from sandbox.container.labels import (
    ANNOTATION_POLICY,
    ANNOTATION_POLICY_DIGEST,
    ANNOTATION_POLICY_JSON,
    LABEL_BROKER,
    LABEL_CREATED_AT,
    LABEL_OWNER,
    LABEL_SANDBOX,
    LABEL_UID,
)
from sandbox.container.spec import ContainerSpec, DiskRate
from sandbox.errors import (
    EngineUnavailable,
    InvalidRequest,
    NotPermitted,
    QuotaExceeded,
    SandboxError,
    SessionLost,
)
from sandbox.policy import load
from sandbox.runtimes.broker.protocol import MAX_REQUEST_BYTES
from sandbox.runtimes.broker.runtime import BrokerRuntime

from ..support.brokerprocess import BrokerProcess, broker_process
from ..support.specs import linked, running, specs_of

pytestmark = pytest.mark.anyio

MAX_CONTAINERS = 3
Specs = Callable[..., ContainerSpec]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A broker in a process of its own, before the real engine."""
    folder = tmp_path_factory.mktemp("b")
    with broker_process(folder, max_sessions=MAX_CONTAINERS, runtime="") as process:
        yield process


@pytest.fixture
def client(broker: BrokerProcess) -> BrokerRuntime:
    """The attacker's way to it."""
    return BrokerRuntime(broker.address, timeout_s=60)


@pytest.fixture
async def make_spec(client: BrokerRuntime) -> AsyncIterator[Specs]:
    """Specs that the broker takes, before they are tampered with."""
    async with specs_of(client) as make:
        yield make


@pytest.fixture
def foreign(unguarded: Any) -> Container:
    """Somebody else's running container on the same engine."""
    return unguarded.container


async def said(broker: BrokerProcess, data: bytes) -> dict[str, Any]:
    """What the broker answers to raw bytes."""
    with anyio.fail_after(60):
        reader, writer = await asyncio.open_unix_connection(broker.path, limit=1 << 20)
        try:
            writer.write(data)
            return json.loads(await reader.readline())
        finally:
            writer.transport.abort()


def line(**request: Any) -> bytes:
    return json.dumps(request).encode() + b"\n"


async def refusal(
    client: BrokerRuntime, asked: ContainerSpec, *, by: type[SandboxError] = NotPermitted
) -> SandboxError:
    """How the creation of a container is refused, which must leave nothing."""
    with pytest.raises(by) as caught:
        await client.create(asked)
    left = docker.from_env().containers.list(all=True, filters={"name": asked.name})
    assert left == []
    return caught.value


HOST_REACH: dict[str, Any] = {
    "privileged": True,
    "network_mode": "host",
    "ipc_mode": "host",
    "cgroupns_mode": "host",
    "cap_add": ("SYS_ADMIN",),
    "cap_drop": (),
    "no_new_privileges": False,
    "apparmor": "unconfined",
    "read_only_root": False,
    "masked_paths": (),
    "readonly_paths": (),
    "pids_limit": -1,
    "memory_bytes": 1 << 50,
    "oom_score_adj": -1000,
    "disk_reads": (DiskRate(device="/dev/null", bytes_per_s=1),),
    "disk_writes": (DiskRate(device="/dev/null", bytes_per_s=1),),
    "sysctls": {},
    "runtime": "io.containerd.runc.v2",
    "command": ("/bin/sh", "-c", "id"),
    "environment": {"LD_PRELOAD": "/workspace/evil.so"},
}


@pytest.mark.parametrize("field", HOST_REACH)
async def test_no_field_of_a_container_can_be_loosened(
    client: BrokerRuntime, make_spec: Specs, field: str
) -> None:
    """Invariant 10: what differs from the broker's own compilation in one field is not made."""
    await refusal(client, make_spec().model_copy(update={field: HOST_REACH[field]}))


@pytest.mark.parametrize(
    "more",
    [
        {"binds": ["/:/host"]},
        {"mounts": [{"source": "/", "target": "/data/host", "read_only": False}]},
        {"volumes_from": ["other"]},
        {"devices": ["/dev/mem"]},
        {"HostConfig": {"Binds": ["/:/host"], "Privileged": True}},
    ],
)
async def test_no_folder_or_device_of_the_host_can_be_asked_for(
    broker: BrokerProcess, make_spec: Specs, more: dict[str, Any]
) -> None:
    """Invariant 2: a mount that the policy does not have is refused, whatever it is called."""
    asked = make_spec().model_dump(mode="json")
    answer = await said(broker, line(op="create", spec=asked | more))
    assert answer["error"]["code"] in ("invalid_request", "not_permitted")
    left = docker.from_env().containers.list(all=True, filters={"name": asked["name"]})
    assert left == []


@pytest.mark.parametrize("image", ["debian:bookworm-slim", "sandbox/controller:latest"])
async def test_no_other_image_can_be_run(
    client: BrokerRuntime, make_spec: Specs, image: str
) -> None:
    """Invariant 5: the image is the policy's, and no other one, not even one of ours."""
    await refusal(client, make_spec().model_copy(update={"image": image}))
    assert not await client.has_image(image)


async def test_a_policy_that_prefers_gvisor_cannot_be_had_on_the_hosts_kernel(
    tmp_path: Path,
) -> None:
    """Invariant 10: the broker chooses the runtime, by its policy and what its engine has."""
    with broker_process(tmp_path, runtime="") as broker:
        client = BrokerRuntime(broker.address, timeout_s=60)
        async with specs_of(client) as make:
            preferred = make("ci-eval")
            weaker = preferred.model_copy(update={"runtime": "runc"})
            assert preferred.runtime == "runsc"
            assert "runc" in load().get("ci-eval").runtimes
            assert "runtime" in (await refusal(client, weaker)).message
            await client.remove(await client.create(preferred))


async def test_no_other_seccomp_profile_can_be_brought(
    client: BrokerRuntime, make_spec: Specs
) -> None:
    """Invariant 4: the profile is the broker's own."""
    open_profile = '{"defaultAction":"SCMP_ACT_ALLOW"}'
    await refusal(client, make_spec().model_copy(update={"seccomp": open_profile}))


@pytest.mark.parametrize("uid", [0, 1, 1000, 199_999, 2**31 - 1, -1])
async def test_no_container_can_run_as_root_or_a_user_of_the_host(
    client: BrokerRuntime, make_spec: Specs, uid: int
) -> None:
    """Invariant 4: a uid that no session gets is refused, even where all of it agrees."""
    made = make_spec()
    mounts = tuple(each.model_copy(update={"uid": uid, "gid": uid}) for each in made.tmpfs)
    labels = made.labels | {LABEL_UID: str(uid)}
    forged = {"uid": uid, "gid": uid, "tmpfs": mounts, "labels": labels}
    # A label cannot begin with a minus, so that is no request at all.
    by = InvalidRequest if uid < 0 else NotPermitted
    await refusal(client, made.model_copy(update=forged), by=by)


@pytest.mark.parametrize("name", ["offline", "mine"])
async def test_no_policy_of_ones_own_can_be_brought(
    client: BrokerRuntime, make_spec: Specs, name: str
) -> None:
    """Invariant 5: a policy counts when the broker has it, however well labels and spec agree."""
    offline = load().get("offline")
    mine = offline.model_copy(
        update={"name": name, "limits": offline.limits.model_copy(update={"pids": 30_000})}
    )
    made = make_spec()
    annotations = made.annotations | {
        ANNOTATION_POLICY: name,
        ANNOTATION_POLICY_JSON: mine.to_json(),
        ANNOTATION_POLICY_DIGEST: mine.digest,
    }
    error = await refusal(
        client, made.model_copy(update={"annotations": annotations, "pids_limit": 30_000})
    )
    assert "version, policy files" in error.remedy


async def test_a_digest_cannot_stand_for_another_policy(
    client: BrokerRuntime, make_spec: Specs
) -> None:
    """Invariant 4: the digest of a known policy does not let in a spec under another one."""
    loose = load().get("datascience")
    for forged in (
        {ANNOTATION_POLICY_DIGEST: loose.digest},
        {ANNOTATION_POLICY_JSON: loose.to_json()},
        {ANNOTATION_POLICY_JSON: loose.to_json(), ANNOTATION_POLICY_DIGEST: loose.digest},
    ):
        made = make_spec()
        await refusal(client, made.model_copy(update={"annotations": made.annotations | forged}))


async def test_no_container_can_be_made_under_an_old_or_a_coming_identity(
    client: BrokerRuntime, make_spec: Specs
) -> None:
    """Invariant 7: no identity of before is taken again, and none is taken in advance."""
    for created_at in (time.time() - 3600, time.time() + 10**8):
        made = make_spec()
        forged = {LABEL_CREATED_AT: repr(created_at)}
        await refusal(client, made.model_copy(update={"labels": made.labels | forged}))


async def test_labels_cannot_be_added_to_pass_for_anothers_container(
    client: BrokerRuntime, make_spec: Specs, broker: BrokerProcess
) -> None:
    """Invariant 10: neither the broker's mark nor what other programs act on can be put on."""
    mark = (broker.folder / "broker-state/controllers/broker/owner").read_text().strip()
    for forged in (
        {LABEL_BROKER: mark},
        {"com.docker.compose.project": "production"},
        {LABEL_OWNER: "production"},
        {LABEL_SANDBOX: "sb-short"},
    ):
        made = make_spec()
        await refusal(client, made.model_copy(update={"labels": made.labels | forged}))
    made = make_spec()
    path = {LABEL_SANDBOX: "sb-../../../../../../../../x"}
    forged_path = made.model_copy(update={"labels": made.labels | path})
    await refusal(client, forged_path, by=InvalidRequest)


async def test_foreign_containers_cannot_be_seen_touched_or_ended(
    client: BrokerRuntime, foreign: Container
) -> None:
    """Invariant 10: a container that the broker did not make answers as one that does not exist."""
    assert foreign.id is not None
    answers: list[list[str]] = []
    for container_id in (foreign.id, "0" * 64):
        info = await client.inspect(container_id)
        assert (info.state, info.labels, info.facts) == ("missing", {}, None)
        await client.remove(container_id)
        told: list[str] = []
        for attempt in (client.start, client.pause, client.unpause, client.connect, client.stats):
            with pytest.raises(SessionLost) as caught:
                await attempt(container_id)
            told.append(caught.value.message.replace(container_id[:12], "ID"))
        answers.append(told)
    assert answers[0] == answers[1]
    foreign.reload()
    assert foreign.status == "running"


async def test_a_list_shows_the_brokers_own_containers_alone(
    client: BrokerRuntime, make_spec: Specs, foreign: Container
) -> None:
    """Invariant 10: no filter widens a listing, not even one for another broker's mark."""
    own = await client.create(make_spec())
    for labels in (
        {},
        {LABEL_BROKER: "0" * 32},
        {"io.sandbox.test": "unguarded"},
        {f"{LABEL_BROKER}=": ""},
        {"": ""},
    ):
        found = {each.id for each in await client.list(labels)}
        assert found <= {own}
        assert foreign.id not in found
    assert {each.id for each in await client.list({})} == {own}


@pytest.mark.parametrize(
    "op", ["start", "pause", "unpause", "connect", "inspect", "remove", "stats"]
)
async def test_nothing_but_a_full_id_names_a_container(
    broker: BrokerProcess, foreign: Container, op: str
) -> None:
    """Invariant 10: names, short ids and pieces of the engine's paths never get that far."""
    assert foreign.id is not None
    for text in (
        foreign.name,
        foreign.id[:12],
        foreign.id.upper(),
        f"{foreign.id}/archive?path=/etc",
        f"../images/json?{foreign.id}",
        f"{foreign.id}\n",
        f"{foreign.id}%2f..%2f..",
        "",
        "*",
        None,
        [foreign.id],
    ):
        answer = await said(broker, line(op=op, container=text))
        assert answer["error"]["code"] == "invalid_request", text
    foreign.reload()
    assert foreign.status == "running"


@pytest.mark.parametrize(
    "more", [{"cmd": ["sh"]}, {"user": "0"}, {"privileged": True}, {"tty": True}, {"env": ["A=b"]}]
)
async def test_what_is_executed_inside_cannot_be_chosen(
    broker: BrokerProcess, client: BrokerRuntime, make_spec: Specs, more: dict[str, Any]
) -> None:
    """Invariant 10: connect runs the bridge as the session's uid, and has no other argument."""
    container = await running(client, make_spec())
    answer = await said(broker, line(op="connect", container=container, **more))
    assert answer["error"]["code"] == "invalid_request"
    answer = await said(broker, line(op="exec", container=container, **more))
    assert answer["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /v1.41/containers/json HTTP/1.1\r\nHost: docker\r\n\r\n",
        b'POST /containers/create HTTP/1.1\r\nHost: x\r\n\r\n{"Image":"x"}\n',
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_the_engines_own_api_is_not_passed_through(
    broker: BrokerProcess, request_line: bytes
) -> None:
    """Invariant 10: there is no request by which the engine's API can be spoken."""
    answer = await said(broker, request_line)
    assert answer["error"]["code"] == "invalid_request"


@pytest.mark.timed
async def test_endless_and_unfinished_requests_hold_up_nobody(
    broker: BrokerProcess, client: BrokerRuntime
) -> None:
    """Invariant 3: requests are bounded in bytes and in time, each on its own."""
    answer = await said(broker, b'{"op":"' + b"x" * (2 * MAX_REQUEST_BYTES))
    assert answer["error"]["code"] == "invalid_request"
    slow = [await asyncio.open_unix_connection(broker.path) for _ in range(30)]
    for _, writer in slow:
        writer.write(b'{"op":')
    began = time.monotonic()
    assert (await client.engine()).version
    took_s = time.monotonic() - began
    with anyio.fail_after(60):
        for reader, writer in slow:
            assert b"did not arrive" in await reader.readline()
            writer.transport.abort()
    assert took_s < 5


async def test_connections_are_bounded_and_free_again(
    broker: BrokerProcess, client: BrokerRuntime
) -> None:
    """Invariant 3: a flood of connections is refused past a number, and forgotten afterwards."""
    many = [await asyncio.open_unix_connection(broker.path) for _ in range(120)]
    # Closed before the request is written, a connection can lose the reason of its refusal.
    refused = (QuotaExceeded, EngineUnavailable)
    with pytest.raises(refused):
        await client.engine()
    for _, writer in many:
        writer.transport.abort()
    with anyio.fail_after(30):
        while True:
            try:
                assert (await client.engine()).version
                return
            except refused:
                await anyio.sleep(0.05)  # until the broker has seen them go


async def test_containers_are_bounded_by_the_broker_itself(
    client: BrokerRuntime, make_spec: Specs
) -> None:
    """Invariant 10: a controller that forgets its own limits meets the broker's."""
    outcomes: list[str] = []

    async def create() -> None:
        try:
            await client.create(make_spec())
            outcomes.append("made")
        except QuotaExceeded:
            outcomes.append("refused")

    async with anyio.create_task_group() as tasks:
        for _ in range(MAX_CONTAINERS + 4):
            tasks.start_soon(create)
    assert outcomes.count("made") == MAX_CONTAINERS
    assert len(await client.list({})) == MAX_CONTAINERS


async def test_two_containers_cannot_be_given_one_uid(
    client: BrokerRuntime, make_spec: Specs
) -> None:
    """Invariant 7: limits that the kernel counts by uid stay each session's own."""
    first, second = make_spec(), make_spec()
    await client.create(first)
    uid = first.uid
    mounts = tuple(each.model_copy(update={"uid": uid, "gid": uid}) for each in second.tmpfs)
    labels = second.labels | {LABEL_UID: str(uid)}
    update = {"uid": uid, "gid": uid, "tmpfs": mounts, "labels": labels}
    with pytest.raises(SandboxError) as caught:
        await client.create(second.model_copy(update=update))
    assert caught.value.code == "conflict"
    assert len(await client.list({})) == 1


def test_another_user_of_the_machine_gets_nothing(broker: BrokerProcess) -> None:
    """Invariant 10: the socket's mode keeps others out, and its peer's uid is checked besides."""
    attempt = textwrap.dedent(
        """
        import socket, sys
        s = socket.socket(socket.AF_UNIX)
        try:
            s.connect(sys.argv[1])
        except PermissionError:
            sys.exit("no permission")
        try:
            s.sendall(b'{"op":"engine"}\\n')
        except BrokenPipeError:
            pass  # refused before it was heard; the reason can still be read
        sys.exit(s.recv(65536).decode())
        """
    )

    def as_nobody() -> str:
        done = subprocess.run(
            ["/usr/bin/python3", "-c", attempt, str(broker.path)],
            user=65534,
            group=65534,
            extra_groups=(),
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={},
        )
        return done.stderr

    opened = [broker.folder, *broker.folder.parents[: len(broker.folder.parents) - 2]]
    modes = {path: path.stat().st_mode for path in (*opened, broker.path)}
    try:
        for path in opened:
            path.chmod(0o755)
        assert "no permission" in as_nobody()
        broker.path.chmod(0o666)
        told = json.loads(as_nobody())
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert told["error"]["code"] == "not_permitted"
    assert "ok" not in told


async def test_an_honest_controller_is_served_after_all_of_this(
    client: BrokerRuntime, make_spec: Specs
) -> None:
    """Invariant 8: none of these attacks has cost those who come by the rules anything."""
    spec = make_spec()
    container = await running(client, spec)
    async with linked(await client.connect(container)) as link:
        assert (await link.call("info"))["uid"] == spec.uid
    assert (await client.stats(container)).pids > 0
    await client.remove(container)
    assert (await client.inspect(container)).state == "missing"


def test_the_log_of_the_broker_cannot_be_written_into(broker: BrokerProcess) -> None:
    """Invariant 3: what clients sent stands in the log as printable text, a line each."""
    lines = Path(broker.folder / "broker.log").read_text().splitlines()
    assert any("refused" in each for each in lines)
    assert all(each.isprintable() and len(each) < 1000 for each in lines)
