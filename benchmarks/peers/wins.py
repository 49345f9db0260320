"""Where another contender does better than this project, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.peers.contenders import CONTENDERS, MEASURES, Contender, Measure
from benchmarks.peers.samples import Run

OURS = "ours"
MARGIN = 1.05
"""What is less apart than this is no difference."""

_COPIED = (
    "the engine unpacks an archive straight into the container; here each byte passes HTTP, the "
    "controller and the link, and is held to the workspace's bound. What each takes was not "
    "measured."
)
REASONS: Mapping[str, Mapping[str, str]] = {
    "jupyter": {
        "next": ("no container, no HTTP and no record of what ran: two processes of one machine."),
        "close": "it ends one process; a container has to be taken apart by the engine.",
        "pandas": (
            "another environment's pandas, on the machine's own file system, under no "
            "limits; what each of these gives was not measured."
        ),
        "output": (
            "nothing bounds, checks or keeps the output: it goes from the kernel's socket "
            "into a list."
        ),
        "programs": "no container at all.",
        "memory": "one process, without the engine's shim, an init or a supervisor beside it.",
        "memory_each": "as above.",
    },
    "docker": {
        "put": _COPIED,
        "get": _COPIED,
        "programs": (
            "this is the engine alone, with no proof, no kernel and nothing that is kept "
            "for later questions."
        ),
        "memory": (
            "nothing waits in it but `sleep`: each piece of code pays for its own interpreter."
        ),
        "memory_each": "as above.",
        "output": (
            "bytes go from the engine into a pipe; here they are Jupyter messages, which "
            "are numbered, bounded and kept until they have been read."
        ),
    },
    "llm-pool": {
        "put": _COPIED,
        "get": _COPIED,
        "close": (
            "it does not close: the container goes back to the pool and is given to the "
            "next session as it is."
        ),
        "open": (
            "it hands out a container in which nothing is started or looked at, and which "
            "others may have used."
        ),
        "first": "as for open; the container may have been another session's.",
        "memory": "nothing waits in it but the image's own command.",
        "memory_each": "as above.",
        "output": "bytes go from the engine into a string, as with bare Docker.",
    },
    "llm-interactive": {
        "put": _COPIED,
        "get": _COPIED,
        "output": (
            "the whole output is written to a file in the container and taken at the end: "
            "nothing is seen before, and nothing bounds it."
        ),
        "memory": (
            "one process without Jupyter, a supervisor or a link: it is asked through "
            "files, which is why each answer takes so long."
        ),
        "memory_each": "as above.",
    },
    "swe-rex": {
        "memory": ("a server and a shell: no interpreter waits, each piece of code starts one."),
        "memory_each": "as above.",
    },
    "autogen": {
        "put": (
            "the folder is mounted from this machine, so this is a copy on this machine; "
            "here files go through the controller, which bounds them, and no folder is "
            "shared."
        ),
        "get": "as above.",
    },
}
"""Why, by contender and measure."""


@dataclass(frozen=True)
class Win:
    """One measure in which another contender does better than this project with its pool."""

    contender: Contender
    measure: Measure
    theirs: float
    ours: float

    @property
    def reason(self) -> str:
        """Why, as far as somebody has looked."""
        known = REASONS.get(self.contender.name, {}).get(self.measure.name)
        return known or "nobody has looked yet why."


def wins(run: Run) -> list[Win]:
    """Every measure in which somebody else does better, in the order of the measures."""
    found: list[Win] = []
    for measure in MEASURES:
        ours = run.of(OURS, measure.name)
        if ours is None:
            continue
        for contender in CONTENDERS:
            theirs = run.of(contender.name, measure.name)
            if contender.is_ours or theirs is None:
                continue
            better, worse = (theirs, ours) if measure.less_is_better else (ours, theirs)
            if better.median * MARGIN < worse.median:
                found.append(Win(contender, measure, theirs.median, ours.median))
    return found
