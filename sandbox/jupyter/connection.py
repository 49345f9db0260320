"""Where the clients of a kernel find it: what a connection file says."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.errors import InvalidRequest
from sandbox.jupyter.signing import Signer

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Connection:
    """What a connection file says, checked."""

    addresses: Mapping[str, str]
    """Of each channel, as ZeroMQ writes it."""
    signer: Signer

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Connection:
        """Read it.

        Raises:
            InvalidRequest: It makes no sense, or others than this machine's could reach the kernel.
        """
        transport, ip = info.get("transport", "tcp"), info.get("ip")
        if not isinstance(ip, str) or not ip:
            raise InvalidRequest("The connection file names no address.")
        if transport == "tcp":
            ip = _loopback(ip)
        elif transport != "ipc":
            raise InvalidRequest(
                f"Kernels in a sandbox are not reached by {transport!r:.40}.",
                remedy="Set KernelManager.transport to `tcp` or `ipc`.",
            )
        between = ":" if transport == "tcp" else "-"
        addresses: dict[str, str] = {}
        for channel in CHANNELS:
            port = info.get(f"{channel}_port")
            if type(port) is not int or not 0 < port <= MAX_PORT:
                raise InvalidRequest(f"The connection file has no port for {channel}.")
            addresses[channel] = f"{transport}://{ip}{between}{port}"
        key = info.get("key", "")
        key = key.encode() if isinstance(key, str) else b""
        return cls(addresses, Signer(key, str(info.get("signature_scheme", "hmac-sha256"))))


def _loopback(ip: str) -> str:
    """The address, if only this machine can reach it."""
    try:
        address = ipaddress.IPv4Address("127.0.0.1" if ip == "localhost" else ip)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise InvalidRequest(
            f"The kernel's address would be {ip:.60}, which others than this machine may reach.",
            remedy="Set KernelManager.ip to 127.0.0.1.",
        )
    return str(address)
