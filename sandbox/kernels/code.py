"""What is accepted as the code of a cell."""

from __future__ import annotations

from sandbox.errors import InvalidRequest

MAX_CODE_BYTES = 1024 * 1024


FENCES = ("```", "~~~")


def normalized(code: str) -> str:
    """Code as Python reads it from a file: no byte-order mark, and ``\\n`` at the ends of lines."""
    return code.removeprefix("\ufeff").replace("\r\n", "\n")


def unfenced(code: str) -> str:
    """Code without the Markdown fence that it is wholly within; as it is when it is not.

    https://spec.commonmark.org/0.31.2/#fenced-code-blocks
    """
    stripped = code.removeprefix("\ufeff").strip()
    if not stripped.startswith(FENCES):
        return code
    fence = stripped[:3]
    first, *body = stripped.split("\n")
    language = first.lstrip(fence[0]).strip()
    if not body or body.pop().strip() != first[: len(first.rstrip()) - len(language)].strip():
        return code
    if len(language.split()) > 1 or any(line.startswith(fence) for line in body):
        return code
    return "".join(f"{line}\n" for line in body)


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
