"""Where a request carries its token: in a header or, for WebSockets of browsers, a sub-protocol.

A browser's page cannot set headers for a WebSocket. It offers two sub-protocols instead, of which
the answer selects the first, so that the token is never said back (RFC 6455, section 1.9)::

    Sec-WebSocket-Protocol: sandbox.v1, sandbox.bearer.<base64url of the token>

A token in an address is none: addresses are kept in logs and histories. The clients of Jupyter
Servers know no other way for WebSockets, and another word in the header, so below ``/jupyter``
alone ``?token=T`` and ``Authorization: token T`` count too. The token is taken out of the address
there, before anything looks at that or puts it on record.
"""

from __future__ import annotations

import base64
import binascii
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers
from starlette.types import Scope

MAX_HEADER = 16 * 1024
JUPYTER = "/jupyter"
"""Sessions as Jupyter Servers are below this path."""
SUBPROTOCOL = "sandbox.v1"
KERNEL_SUBPROTOCOL = "v1.kernel.websocket.jupyter.org"
"""What clients of Jupyter offer; it carries no token."""
BEARER = "sandbox.bearer."


def take_token(scope: Scope) -> str:
    """The token of a request or of a WebSocket's handshake; empty when it has none, or several.

    A sub-protocol or an address that carries one is made anew without it: nothing further in can
    answer or keep it. The same token in two places is one.
    """
    is_jupyter = scope["path"].startswith(f"{JUPYTER}/")
    schemes = ("bearer", "token") if is_jupyter else ("bearer",)
    headers = Headers(scope=scope).getlist("authorization")[:2]
    found = [bearer(value, schemes) for value in headers]
    if is_jupyter:
        found += _from_address(scope)
    if scope["type"] == "websocket":
        offered: list[str] = scope["subprotocols"]
        known = (SUBPROTOCOL, *((KERNEL_SUBPROTOCOL,) if is_jupyter else ()))
        scope["subprotocols"] = [each for each in known if each in offered]
        if SUBPROTOCOL in offered:
            carried = [each for each in offered if each.startswith(BEARER)]
            found += [_decoded(each.removeprefix(BEARER)) for each in carried[:2]]
    if is_jupyter:
        found = list(dict.fromkeys(found))
    return found[0] if len(found) == 1 else ""


def bearer(header: str, schemes: tuple[str, ...] = ("bearer",)) -> str:
    """The token of an Authorization header; empty when it has none."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() in schemes and len(header) <= MAX_HEADER else ""


def _from_address(scope: Scope) -> list[str]:
    """The tokens in the query of an address, which has none afterwards."""
    query: bytes = scope["query_string"]
    if b"token" not in query and b"%" not in query:
        return []
    given = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    scope["query_string"] = urlencode([(k, v) for k, v in given if k != "token"]).encode()
    return [value for key, value in given if key == "token"]


def _decoded(text: str) -> str:
    if len(text) > MAX_HEADER:
        return ""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return data.decode("ascii")
    except (binascii.Error, ValueError):
        return ""
