"""What is accepted as the code of a cell."""

from __future__ import annotations

from sandbox.errors import InvalidRequest

MAX_CODE_BYTES = 1024 * 1024


def check_code(code: str) -> None:
    """Refuse code that is too long, or no text that UTF-8 can express."""
    try:
        size = len(code.encode("utf-8"))
    except UnicodeEncodeError as exc:
        raise InvalidRequest("The code holds characters that UTF-8 cannot express.") from exc
    if size > MAX_CODE_BYTES:
        raise InvalidRequest(
            f"The code is {size:,} bytes long; {MAX_CODE_BYTES:,} is the most.",
            remedy="Write the data into a file and read it in the code.",
        )


def check_position(code: str, position: int | None) -> int:
    """Refuse a place for the cursor that is not in the code; without one it is at the end."""
    check_code(code)
    if position is None:
        return len(code)
    if not 0 <= position <= len(code):
        raise InvalidRequest(f"The cursor must be between 0 and {len(code)}.")
    return position
