"""What the tables of the journal have in common: models as JSON, and what cannot be read."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ValidationError

from sandbox.database import Database
from sandbox.errors import InfrastructureError

UNREADABLE = (
    "What the controller had noted of it cannot be read any more, most often after a change of its "
    "version; it was set aside."
)

logger = logging.getLogger(__name__)


class Run(NamedTuple):
    """An execution or a command as the journal has it, in JSON."""

    record: str | None
    """What was asked for; None when there is no room for it."""
    result: str | None
    """What came of it so far; None when that is nothing, or there is no room for it."""
    has_room: bool


def as_json(value: BaseModel) -> str:
    """A model as JSON that SQLite can hold: lone surrogates, which a kernel may send, replaced."""
    dump: Callable[[], str] = value.model_dump_json
    try:
        return dump()
    except ValueError:
        text = json.dumps(value.model_dump(), ensure_ascii=False, default=str)
        return text.encode("utf-8", "replace").decode()


def latest_runs(
    db: Database,
    table: Literal["executions", "commands"],
    session_id: str,
    *,
    asked_bytes: int,
    result_bytes: int,
) -> Iterator[Run]:
    """What ran in a session, the latest first: as much of what was asked for, and of what came of
    it, as there is room for. Between two others may use the loop."""
    result = "snapshot" if table == "executions" else "result"
    rows = db.read(
        f"SELECT rowid, length(record), size_bytes FROM {table} WHERE session_id = ?"  # noqa: S608  # constants
        " ORDER BY rowid DESC",
        session_id,
    )
    for rowid, asked, size_bytes in rows:
        asked_bytes -= asked
        if asked_bytes < 0:
            yield Run(None, None, has_room=False)
            continue
        result_bytes -= size_bytes - asked
        columns = f"record, {result}" if result_bytes >= 0 else "record, NULL"
        for found in db.read(f"SELECT {columns} FROM {table} WHERE rowid = ?", rowid):  # noqa: S608  # constants
            yield Run(*found, has_room=result_bytes >= 0)


def set_aside(db: Database, row_id: str, content: Any, error: ValidationError) -> None:
    """Keep a row that cannot be read any more, as it was, where it stops nobody."""
    wrong = error.errors(include_input=False, include_url=False)[0]
    reason = f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}"
    logger.error("the journal's row of %s is set aside: %s", row_id, reason)
    try:
        db.write(
            "INSERT INTO set_aside VALUES (?, ?, ?, ?)",
            *(time.time(), reason, row_id, json.dumps(content)),
        )
    except InfrastructureError as exc:
        logger.error("the journal cannot take what is set aside of %s: %s", row_id, exc)
