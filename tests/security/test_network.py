"""Attacks on ``network: none``: every way out but the link must be a dead end."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from .conftest import Attacked, Unguarded
from .inside import attempt, readable

pytestmark = pytest.mark.anyio

NO_WAY = {"ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "ECONNREFUSED", "ENETDOWN"}


@pytest.fixture
def host_service() -> Iterator[tuple[str, int]]:
    """A TCP service of the host on all its addresses; the host's own address, and the port."""
    everywhere = ("0.0.0.0", 0)  # noqa: S104  # to be as reachable as can be
    with (
        socket.create_server(everywhere) as server,
        socket.socket(type=socket.SOCK_DGRAM) as asking,
    ):
        try:
            asking.connect(("192.0.2.1", 9))  # sends nothing: tells which address would be used
            address = asking.getsockname()[0]
        except OSError:
            address = "127.0.0.1"
        yield address, server.getsockname()[1]


async def test_the_only_interface_is_loopback(sandbox: Attacked) -> None:
    """Invariant 1: no interface, route, neighbour or multicast group but loopback's own."""

    def network() -> object:
        import socket

        return {
            "interfaces": sorted(
                line.partition(":")[0].strip()
                for line in readable("/proc/net/dev", 4096).splitlines()[2:]
            ),
            "indexed": [attempt(lambda n=n: socket.if_indextoname(n)) for n in range(1, 5)],
            "routes": readable("/proc/net/route", 4096).splitlines()[1:],
            "neighbours": readable("/proc/net/arp", 4096).splitlines()[1:],
            "ipv6": [
                line.split()[-1] for line in readable("/proc/net/if_inet6", 4096).splitlines()
            ],
        }

    answer = await sandbox.attack(network)
    assert answer["interfaces"] == ["lo"]
    assert answer["indexed"] == ["lo", "ENXIO", "ENXIO", "ENXIO"]
    assert answer["routes"] == [] or (sandbox.gvisor and all("lo" in r for r in answer["routes"]))
    assert answer["neighbours"] == []
    assert set(answer["ipv6"]) <= {"lo", "ENOENT"}


async def test_no_address_outside_can_be_reached(
    sandbox: Attacked, host_service: tuple[str, int]
) -> None:
    """Invariant 1: the host's addresses, the engine's gateway, metadata and the internet: all
    dead."""

    def connect(targets: list[tuple[str, int]]) -> object:
        import socket

        answers = {}
        for host, port in targets:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(family, kind) as client:
                    client.settimeout(3)

                    def reach(client: socket.socket = client, to: object = (host, port)) -> object:
                        client.connect(to)
                        client.send(b"x")
                        return "reached"

                    answers[f"{host} {kind}"] = attempt(reach)
        return answers

    address, port = host_service
    with socket.create_connection((address, port), timeout=3):
        pass  # the service does answer
    gateway = subprocess.run(  # noqa: ASYNC221  # nothing else runs here meanwhile
        ["docker", "network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}"],
        capture_output=True, text=True, check=True,
    ).stdout.strip() or "172.17.0.1"  # fmt: skip
    targets = [
        (address, port),
        (gateway, port),
        ("169.254.169.254", 80),
        ("192.0.2.1", 53),
        ("10.0.0.1", 443),
        ("255.255.255.255", 9),
        ("224.0.0.1", 9),
        ("::ffff:169.254.169.254", 80),
        ("2001:db8::1", 443),
        ("fe80::1", 80),
        ("ff02::1", 9),
    ]
    for target, answer in (await sandbox.attack(connect, targets)).items():
        assert answer in NO_WAY | {"EINVAL", "EACCES", "EPERM"}, target


async def test_the_hosts_loopback_is_another_one(
    sandbox: Attacked, host_service: tuple[str, int]
) -> None:
    """Invariant 1: 127.0.0.1 and ::1 inside are the sandbox's own; the host's services are not
    there."""

    def connect(port: int) -> object:
        import socket

        answers = []
        for host in ("127.0.0.1", "127.0.0.53", "0.0.0.0", "localhost"):  # noqa: S104
            with socket.socket() as client:
                client.settimeout(3)
                answers.append(attempt(lambda c=client, h=host: c.connect((h, port)) or "reached"))
        return answers

    assert set(await sandbox.attack(connect, host_service[1])) <= {"ECONNREFUSED", "ENETUNREACH"}


async def test_names_do_not_resolve_and_leak_nothing(sandbox: Attacked) -> None:
    """Invariant 1: there is no resolver to carry data out in names."""

    def resolve() -> object:
        import socket

        socket.setdefaulttimeout(5)
        answers = []
        for name in ("example.org", "secret-data.example.net", "host.docker.internal"):
            try:
                answers.append(socket.getaddrinfo(name, 80)[0][4][0])
            except socket.gaierror:
                answers.append("no answer")
        return {"answers": answers, "resolver": readable("/etc/resolv.conf", 4096)}

    answer = await sandbox.attack(resolve)
    assert set(answer["answers"]) == {"no answer"}
    servers = [
        row.split()[1] for row in answer["resolver"].splitlines() if row.startswith("nameserver")
    ]
    assert set(servers) <= {"127.0.0.1"}


async def test_abstract_sockets_of_the_host_are_out_of_reach(
    sandbox: Attacked,
) -> None:
    """Invariant 1: abstract Unix sockets belong to the network namespace, which is our own."""
    name = f"\0sandbox-test-{os.getpid()}"

    def connect(name: str) -> object:
        import socket

        with socket.socket(socket.AF_UNIX) as client:
            return {
                "answer": attempt(lambda: client.connect(name) or "reached"),
                "seen": readable("/proc/net/unix", 100_000),
            }

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(name)  # it can be reached from the host
        answer = await sandbox.attack(connect, name)
    assert answer["answer"] == "ECONNREFUSED"
    assert "docker" not in answer["seen"]
    assert "systemd" not in answer["seen"]


async def test_a_network_cannot_be_made_inside(sandbox: Attacked, unguarded: Unguarded) -> None:
    """Invariant 1: no interface, address or route can be added by netlink, no tun opened."""

    def build() -> object:
        import os
        import socket
        import struct

        def ask(kind: int, body: bytes) -> object:
            return attempt(lambda: told(kind, body))

        def told(kind: int, body: bytes) -> int:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as route:
                route.bind((0, 0))
                head = struct.pack("=IHHII", 16 + len(body), kind, 0x605, 1, 0)
                route.send(head + body)
                return struct.unpack_from("=i", route.recv(4096), 16)[0]

        def tun() -> object:
            import fcntl

            device = os.open("/dev/net/tun", os.O_RDWR)
            request = struct.pack("=16sH22x", b"tun0", 0x1001)  # IFF_TUN | IFF_NO_PI
            return len(fcntl.ioctl(device, 0x400454CA, request))  # TUNSETIFF

        dummy = struct.pack("=BBHiII", 0, 0, 0, 0, 0, 0)
        dummy += struct.pack("=HH", 16, 18 | 0x8000) + struct.pack("=HH", 10, 1) + b"dummy\0\0\0"
        address = struct.pack("=BBBBI", 2, 8, 0, 0, 1)
        address += struct.pack("=HH", 8, 2) + bytes((10, 9, 8, 7))
        route = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 253, 1, 0)
        route += struct.pack("=HHI", 8, 4, 1)
        return {
            "link": ask(16, dummy),
            "address": ask(20, address),
            "route": ask(24, route),
            "tun": attempt(tun),
        }

    control = await unguarded.attack(build)
    assert -95 not in control.values(), "netlink is there to be asked"
    answers = await sandbox.attack(build)
    assert answers.pop("tun") in ("ENOENT", "EACCES", "EPERM", "ENXIO", "ENODEV")
    if sandbox.gvisor:
        assert all(answer < 0 for answer in answers.values())
    else:
        assert set(answers.values()) == {"ENOTSUP"}
