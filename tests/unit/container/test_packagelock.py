"""The lock of what a policy adds, as text."""

from __future__ import annotations

import pytest

from sandbox.container.packagelock import MAX_LOCKED, Locked, lock_of, packages_of
from sandbox.errors import InvalidRequest
from sandbox.policy import ImagePolicy

HASH = f"sha256:{'0a' * 32}"
IMAGE = ImagePolicy(pip=("humanize>=4",), apt=("g++",))
TOLD = [
    f"sandbox-lock: pip humanize==4.17.0 {HASH}",
    "something else",
    f"sandbox-lock: apt g++=4:12.2.0-3+b1 {HASH}",
]


def test_a_lock_says_what_it_is_of_and_what_that_came_to() -> None:
    lock = lock_of(IMAGE, TOLD)
    assert b"# pip: ['humanize>=4']" in lock
    assert packages_of(lock) == (
        Locked("apt", "g++", "4:12.2.0-3+b1"),
        Locked("pip", "humanize", "4.17.0"),
    )


def test_the_same_packages_are_the_same_lock_in_whatever_order_they_are_told() -> None:
    assert lock_of(IMAGE, TOLD) == lock_of(IMAGE, reversed(TOLD))


@pytest.mark.parametrize(
    "line",
    [
        "pip humanize==4.17.0",
        f"pip humanize>=4 {HASH}",
        f"pip humanize==4 {HASH} --index-url=https://a.example",
        f"pip -e {HASH}",
        f"pip a==1 --hash={HASH}",
        f"npm a==1 {HASH}",
        f"apt ./a.deb=1 {HASH}",
        f"apt -o=x {HASH}",
        "pip a==1 md5:00",
        f"pip a==$(x) {HASH}",
    ],
)
def test_a_line_that_could_be_more_than_a_package_is_refused(line: str) -> None:
    with pytest.raises(InvalidRequest, match="none of a lock"):
        packages_of(f"{line}\n".encode())
    with pytest.raises(InvalidRequest):
        lock_of(IMAGE, [f"sandbox-lock: {line}"])


def test_a_lock_has_a_bound() -> None:
    with pytest.raises(InvalidRequest):
        packages_of(f"pip a==1 {HASH}\n".encode() * (MAX_LOCKED + 1))
