"""When what a terminal shows is the answer to what was typed, and not but its echo."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.terminals.models import WaitEnd
from sandbox.terminals.screen import Display

QUIET_S = 0.05
"""Output has settled when nothing came for this long."""
ANSWER_QUIET_S = 0.2
"""A program has answered when it has shown something and then nothing for this long."""
SHELL_QUIET_S = 0.5
"""The same where a shell runs a command, at the end of which it will show its prompt."""
_TAB_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class Typing:
    """What was typed last, and what there was to see before."""

    at: float
    """Of the monotonic clock."""
    position: int
    """Of the terminal's log."""
    data: bytes
    prompt: str
    takes_pastes: bool
    line_begun: int
    line_taken: int
    line_feeds: int

    @classmethod
    def now(cls, at: float, position: int, data: bytes, display: Display) -> Typing:
        """What is about to be typed."""
        return cls(
            at=at,
            position=position,
            data=data,
            prompt=display.before_cursor.strip(),
            takes_pastes=display.takes_pastes,
            line_begun=display.line_begun,
            line_taken=display.line_taken,
            line_feeds=display.line_feeds,
        )

    def answered(self, position: int, display: Display) -> tuple[WaitEnd, float] | None:
        """What has come since is the answer once it has been quiet for so many seconds; None if it
        is no answer yet."""
        if position <= self.position:
            return None
        if self._is_prompt_back(display):
            return "prompt", QUIET_S
        if b"\r" not in self.data and b"\n" not in self.data:  # nothing was entered
            return "quiet", QUIET_S if min(self.data, default=0) >= ord(" ") else ANSWER_QUIET_S
        if not self.takes_pastes:
            return ("quiet", ANSWER_QUIET_S) if position > self._echo_end else None
        if display.line_taken == self.line_taken:  # its line editor wants more
            return "quiet", SHELL_QUIET_S
        return ("quiet", SHELL_QUIET_S) if display.has_answer else None

    def _is_prompt_back(self, display: Display) -> bool:
        if display.line_begun > self.line_begun:
            return True
        moved = display.line_feeds > self.line_feeds
        return bool(self.prompt) and moved and display.before_cursor.strip() == self.prompt

    @property
    def _echo_end(self) -> int:
        """Up to this position what came may be the echo: a line end is two, a tab are spaces."""
        controls = sum(byte < ord(" ") for byte in self.data)
        return self.position + len(self.data) + controls + self.data.count(b"\t") * _TAB_COLUMNS
