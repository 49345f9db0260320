"""What the tables of the journal have in common: models as JSON, and what cannot be read."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError

from sandbox.database import Database
from sandbox.errors import InfrastructureError

UNREADABLE = (
    "What the controller had noted of it cannot be read any more, most often after a change of its "
    "version; it was set aside."
)

logger = logging.getLogger(__name__)


def as_json(value: BaseModel) -> str:
    """A model as JSON that SQLite can hold: lone surrogates, which a kernel may send, replaced."""
    dump: Callable[[], str] = value.model_dump_json
    try:
        return dump()
    except ValueError:
        text = json.dumps(value.model_dump(), ensure_ascii=False, default=str)
        return text.encode("utf-8", "replace").decode()


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
