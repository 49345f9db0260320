"""The tokens that were given out, in a file that the commands write and the server reads.

A token is ``sbx_<id>_<secret>``. Of the secret, which has 256 random bits, only the SHA-256 is
kept: there is nothing to guess, so a slow hash would cost every request and protect nothing. The
server looks the token up for each request, so one that is revoked is refused from then on.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.database import Database
from sandbox.errors import InfrastructureError, InvalidRequest, NotFound
from sandbox.server.grants import Grant, SharedNotebook
from sandbox.server.scopes import SCOPES, check_offer, check_scopes

STORE_FILE = "tokens.db"
PREFIX = "sbx_"
FOREIGN = "oauth-"
"""What the ids of applications begin with whose tokens are an authorization server's."""
SECRET_BYTES = 32
KEEP_SHARES_S = 24 * 3600.0
"""For so long it can be looked up which notebook was shared."""
USED_EVERY_S = 60.0
"""How coarse ``last_used_at`` is, so that requests need not write."""

_TOKEN = re.compile(rf"{PREFIX}([a-z0-9]{{12}})_([A-Za-z0-9_-]{{43}})")
_PRINCIPAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
_SCHEMA = """
CREATE TABLE tokens (
    token_id TEXT PRIMARY KEY,
    principal TEXT NOT NULL,
    application TEXT NOT NULL,
    scopes TEXT NOT NULL,       -- JSON, a list
    policies TEXT NOT NULL,     -- JSON, a list; null for all of them
    secret_sha256 BLOB NOT NULL, -- empty for an application with tokens of elsewhere
    created_at REAL NOT NULL,   -- unix time, seconds, as are all
    expires_at REAL,
    revoked_at REAL,
    last_used_at REAL
) STRICT
"""

_TOOLSETS = "ALTER TABLE tokens ADD COLUMN toolsets TEXT NOT NULL DEFAULT 'null'"
"""JSON, a list of toolsets and tools; null for all of them."""

_SHARES = (
    # JSON, a session's id and a path; null for what is not for one notebook.
    "ALTER TABLE tokens ADD COLUMN notebook TEXT NOT NULL DEFAULT 'null'",
    # The token that it was made with, without which it does not count; empty for none.
    "ALTER TABLE tokens ADD COLUMN made_with TEXT NOT NULL DEFAULT ''",
)

_COLUMNS = (
    "token_id, principal, application, scopes, policies, toolsets, notebook, made_with,"
    " created_at, expires_at, revoked_at, last_used_at"
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What is known of a token; never its secret. Times are Unix times, in seconds."""

    token_id: str
    principal: str
    application: str
    scopes: tuple[str, ...]
    policies: tuple[str, ...] | None
    """The policies it may name, the default one first; None for all."""
    toolsets: tuple[str, ...] | None
    """The toolsets and tools that it offers over MCP; None for all."""
    notebook: SharedNotebook | None
    """The only notebook, and the only thing, that it is for; None where it is for more."""
    made_with: str
    """The id of the token that it was made with and ends with; empty for none."""
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None

    @property
    def is_foreign(self) -> bool:
        """Whether it stands for the tokens that an authorization server gives an application."""
        return self.token_id.startswith(FOREIGN)

    def is_valid(self, now: float) -> bool:
        """Whether it counts at a point in time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class TokenStore:
    """The tokens of a state folder; also their verifier.

    Raises:
        ConfigError: The file cannot be used.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = folder / STORE_FILE
        self._clock = clock
        self._db = self._open()

    def close(self) -> None:
        """Close the file; harmless when done already."""
        self._db.close()

    def create(
        self,
        principal: str,
        scopes: Sequence[str],
        *,
        application: str = "",
        policies: Sequence[str] | None,
        toolsets: Sequence[str] | None = None,
        notebook: SharedNotebook | None = None,
        made_with: str = "",
        lifetime_s: float | None,
    ) -> tuple[str, TokenInfo]:
        """Make a token.

        Args:
            policies: The policies it may name, the default one first; None for all.
            toolsets: What it offers over MCP, of what the server does; None for all.
            notebook: The only thing that it is for; None for all that its scopes allow.
            made_with: The id of a token that it ends with.
            lifetime_s: Seconds until it expires; None for never.

        Returns:
            The token, which is not kept and cannot be shown again, and what is known of it.

        Raises:
            InvalidRequest: One of these is not acceptable; nothing was changed.
        """
        if not _PRINCIPAL.fullmatch(principal):
            raise InvalidRequest(
                f"{principal[:80]!r} cannot be a principal.",
                remedy="Use up to 100 letters, digits and `._@+-`, a letter or digit first.",
            )
        if len(application) > 100 or not application.isprintable():
            raise InvalidRequest("An application's name has up to 100 printable characters.")
        known = check_scopes(scopes)
        offered = None if toolsets is None else check_offer(toolsets, known)
        if policies is not None and not policies:
            raise InvalidRequest("A token must name a policy.", remedy="Name some, or `*` for all.")
        token_id, secret = secrets.token_hex(6), secrets.token_urlsafe(SECRET_BYTES)
        now = self._clock()
        self._fresh().write(
            "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, ?, ?, ?)",
            token_id,
            principal,
            application,
            json.dumps([scope for scope in SCOPES if scope in known]),
            json.dumps(None if policies is None else list(policies)),
            _digest(secret),
            now,
            None if lifetime_s is None else now + lifetime_s,
            json.dumps(offered),
            json.dumps(notebook and [notebook.session_id, notebook.path]),
            made_with,
        )
        return f"{PREFIX}{token_id}_{secret}", self.get(token_id)

    def get(self, token_id: str) -> TokenInfo:
        """A token by its id.

        Raises:
            NotFound: There is none.
        """
        found = self._select("token_id = ?", token_id)
        if not found:
            raise NotFound(
                f"There is no token {token_id[:80]!r}.", remedy="`sandbox token list` shows them."
            )
        return found[0]

    def list(self) -> list[TokenInfo]:
        """Every token that was given out, oldest first."""
        return self._select("true ORDER BY created_at")

    def shares(self, principal: str) -> list[TokenInfo]:
        """The tokens for single notebooks that count now and that a principal gave out; of those
        that count no more, the old ones are forgotten."""
        now = self._clock()
        self._fresh().write(
            "DELETE FROM tokens WHERE notebook != 'null' AND min(expires_at, ifnull(revoked_at,"
            " expires_at)) < ?",
            now - KEEP_SHARES_S,
        )
        found = self._select("notebook != 'null' AND principal = ? ORDER BY created_at", principal)
        return [each for each in found if each.is_valid(now) and self._still_made_with(each, now)]

    def revoke(self, *, token_id: str = "", principal: str = "") -> list[TokenInfo]:
        """Revoke a token, or all of a principal; from now on they are refused.

        Returns:
            Those that were valid until now.

        Raises:
            NotFound: There is no such token, or the principal has none.
        """
        now = self._clock()
        if token_id:
            wanted = [self.get(token_id)]
        elif not (wanted := self._select("principal = ?", principal)):
            raise NotFound(f"The principal {principal[:80]!r} has no token.")
        valid = [info for info in wanted if info.is_valid(now)]
        for info in wanted:
            self._fresh().write(
                "UPDATE tokens SET revoked_at = ? WHERE token_id = ? AND revoked_at IS NULL",
                now,
                info.token_id,
            )
        return valid

    async def grant(self, token: str) -> Grant | None:
        """What a token grants now; None for one that is not of here, revoked or expired."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        token_id, secret = match.groups()
        # One look at the file for both: this is asked with every request.
        rows = self._fresh().read(
            f"SELECT secret_sha256, {_COLUMNS} FROM tokens WHERE token_id = ?",  # noqa: S608  # constants
            token_id,
        )
        if not rows or not hmac.compare_digest(rows[0][0], _digest(secret)):
            return None
        info, now = _info(*rows[0][1:]), self._clock()
        if not info.is_valid(now) or not self._still_made_with(info, now):
            return None
        if info.last_used_at is None or now - info.last_used_at >= USED_EVERY_S:
            self._note_use(token_id, now)
        return Grant(
            principal=info.principal,
            application=info.application,
            token_id=token_id,
            scopes=frozenset(info.scopes) & SCOPES.keys(),
            policies=info.policies,
            toolsets=info.toolsets,
            expires_at=info.expires_at,
            notebook=info.notebook,
        )

    def _still_made_with(self, info: TokenInfo, now: float) -> bool:
        """Whether the token counts still that a token was made with."""
        if not info.made_with:
            return True
        found = self._select("token_id = ?", info.made_with)
        return bool(found) and found[0].is_valid(now)

    def admit(self, grant: Grant) -> bool:
        """Note that an application calls with a token that is not of here.

        Returns:
            Whether it may: not when it was revoked.
        """
        now = self._clock()
        found = self._select("token_id = ?", grant.token_id)
        if found and found[0].revoked_at is not None:
            return False
        last = found[0].last_used_at if found else None
        if last is None or now - last >= USED_EVERY_S:
            try:
                self._db.write(
                    "INSERT INTO tokens"
                    " VALUES (?, ?, ?, ?, ?, x'', ?, NULL, NULL, ?, 'null', 'null', '')"
                    " ON CONFLICT DO UPDATE SET scopes = excluded.scopes,"
                    " policies = excluded.policies, last_used_at = excluded.last_used_at",
                    grant.token_id,
                    grant.principal,
                    grant.application,
                    json.dumps([scope for scope in SCOPES if scope in grant.scopes]),
                    json.dumps(grant.policies),
                    now,
                    now,
                )
            except InfrastructureError as exc:  # as with our own tokens
                logger.warning("%s", exc)
        return True

    def allow(self, token_id: str) -> TokenInfo:
        """Let an application call again that was revoked, with the tokens of its issuer.

        Raises:
            NotFound: There is no such application.
            InvalidRequest: It is a token of here, for which a new one is to be made.
        """
        if not self.get(token_id).is_foreign:
            raise InvalidRequest(
                "A token that was revoked stays so.", remedy="Make one with `sandbox token create`."
            )
        self._fresh().write("UPDATE tokens SET revoked_at = NULL WHERE token_id = ?", token_id)
        return self.get(token_id)

    def _note_use(self, token_id: str, now: float) -> None:
        try:
            self._db.write("UPDATE tokens SET last_used_at = ? WHERE token_id = ?", now, token_id)
        except InfrastructureError as exc:  # a full disk is no reason to lock people out
            logger.warning("%s", exc)

    def _select(self, where: str, *values: str) -> list[TokenInfo]:
        rows = self._fresh().read(
            f"SELECT {_COLUMNS} FROM tokens WHERE {where}",  # noqa: S608  # both are constants
            *values,
        )
        return [_info(*row) for row in rows]

    def _fresh(self) -> Database:
        """The file that is there now: one that was put aside grants nothing any more."""
        if self._db.is_replaced:
            self._db.close()
            self._db = self._open()
        return self._db

    def _open(self) -> Database:
        return Database(
            self._path,
            application_id=0x5A4E444B,
            versions=((_SCHEMA,), (_TOOLSETS,), _SHARES),
            what="store of tokens",
            remedy="Move it away to start a new one; the tokens in it are then worth nothing.",
        )


def _info(token_id: str, principal: str, application: str, *rest: Any) -> TokenInfo:
    scopes, policies, toolsets, notebook, made_with, *times = rest
    words = tuple(json.loads(scopes)), _some(policies), _some(toolsets)
    shared = json.loads(notebook)
    return TokenInfo(
        token_id,
        principal,
        application,
        *words,
        SharedNotebook(*shared) if shared else None,
        made_with,
        *times,
    )


def _some(text: str) -> tuple[str, ...] | None:
    """Words as they are kept; None for all that there are."""
    words: list[str] | None = json.loads(text)
    return None if words is None else tuple(words)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
