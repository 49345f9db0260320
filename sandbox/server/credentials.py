"""Where a request carries its token: in a header or, for WebSockets of browsers, a sub-protocol.

A browser's page cannot set headers for a WebSocket. It offers two sub-protocols instead, of which
the answer selects the first, so that the token is never said back (RFC 6455, section 1.9)::

    Sec-WebSocket-Protocol: sandbox.v1, sandbox.bearer.<base64url of the token>

A token in an address is none: addresses are kept in logs and histories.
"""

from __future__ import annotations

import base64
import binascii

from starlette.datastructures import Headers
from starlette.types import Scope

MAX_HEADER = 16 * 1024
SUBPROTOCOL = "sandbox.v1"
BEARER = "sandbox.bearer."


def take_token(scope: Scope) -> str:
    """The token of a request or of a WebSocket's handshake; empty when it has none, or several.

    A sub-protocol that carries one is taken out of the scope: nothing further in can answer it.
    """
    found = [bearer(value) for value in Headers(scope=scope).getlist("authorization")[:2]]
    if scope["type"] == "websocket":
        offered: list[str] = scope["subprotocols"]
        scope["subprotocols"] = [SUBPROTOCOL] if SUBPROTOCOL in offered else []
        if scope["subprotocols"]:
            carried = [each for each in offered if each.startswith(BEARER)]
            found += [_decoded(each.removeprefix(BEARER)) for each in carried[:2]]
    return found[0] if len(found) == 1 else ""


def bearer(header: str) -> str:
    """The token of an Authorization header; empty when it has none."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" and len(header) <= MAX_HEADER else ""


def _decoded(text: str) -> str:
    if len(text) > MAX_HEADER:
        return ""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return data.decode("ascii")
    except (binascii.Error, ValueError):
        return ""
