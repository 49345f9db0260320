"""Policies from files: reading, checking, and the set that a controller runs with."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from sandbox import resources
from sandbox.errors import NotFound, PolicyError
from sandbox.policy.cautions import cautions
from sandbox.policy.document import Document, Key, read_document
from sandbox.policy.extending import loosenings, overlay
from sandbox.policy.fields import FROM_FILE, WRONG, did_you_mean
from sandbox.policy.lockfiles import read_lock
from sandbox.policy.models import Policy
from sandbox.policy.packages import ImagePolicy
from sandbox.policy.parts import file_key

SUFFIX = ".yaml"
DEFAULT_POLICY = "offline"

_NAME = re.compile(r"[a-z0-9-]{1,64}")


class PolicySet:
    """The policies of a controller, by name; a caller who names none gets the default."""

    def __init__(
        self,
        policies: Mapping[str, Policy],
        default: str = DEFAULT_POLICY,
        locks: Mapping[str, bytes] | None = None,
    ) -> None:
        self._policies = dict(policies)
        self._locks = dict(locks or {})
        self.default = default

    def names(self) -> list[str]:
        """The names, sorted."""
        return sorted(self._policies)

    @property
    def digest(self) -> str:
        """SHA-256 of the names, what they stand for, and which one is the default."""
        told = [self.default, *(f"{name} {self._policies[name].digest}" for name in self.names())]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()

    def _take(self, other: PolicySet) -> None:
        """Become the same as another set."""
        self._policies, self._locks = dict(other._policies), dict(other._locks)
        self.default = other.default

    def lock_of(self, image: ImagePolicy) -> bytes:
        """What the packages that an image adds came to; empty when there are none, or no lock."""
        return self._locks.get(image.locked, b"")

    def get(self, name: str = "") -> Policy:
        """The policy of that name; an empty name is the default's.

        Raises:
            PolicyError: It cannot be the name of a policy.
            NotFound: There is no such policy.
        """
        wanted = name or self.default
        if _NAME.fullmatch(wanted) is None:
            raise PolicyError(
                f"{wanted[:80]!r} cannot be the name of a policy",
                remedy="A name has 1 to 64 of a-z, 0-9 and `-`.",
            )
        try:
            return self._policies[wanted]
        except KeyError:
            raise NotFound(
                f"There is no policy {wanted!r}.", remedy=did_you_mean(wanted, self._policies)
            ) from None


def load(*directories: Path, default: str = DEFAULT_POLICY) -> PolicySet:
    """Read every policy of some directories, all or none.

    Args:
        directories: Where ``NAME.yaml`` files are; none means the built-in policies. Other files
            and subdirectories are left alone.
        default: The policy of callers who name none; it must be among them.

    Raises:
        PolicyError: The first thing that is wrong in any of them.
    """
    documents: dict[str, Document] = {}
    folders = directories or (resources.policies(),)
    for directory in folders:
        for path in _files(directory):
            name = _name_of(path)
            if name in documents:
                raise PolicyError(
                    f"there is a policy of that name already, in {documents[name].file}",
                    file=str(path),
                    remedy="Give one of the two files another name.",
                )
            documents[name] = read_document(path)
    policies: dict[str, Policy] = {}
    locks: dict[str, bytes] = {}
    for name, document in documents.items():
        resolved, errors = _resolve(name, document, documents)
        if resolved is None:
            raise errors[0]
        policies[name], lock = _locked(resolved, folders)
        locks[policies[name].image.locked] = lock
    if default not in policies:
        raise PolicyError(
            f"there is no policy {default!r}, which is the default",
            file=", ".join(str(directory) for directory in directories),
            remedy=did_you_mean(default, policies),
        )
    return PolicySet(policies, default, locks)


def load_file(path: Path) -> Policy:
    """The policy of one file; see :func:`check_file` for where it finds what it extends.

    Raises:
        PolicyError: The first thing that is wrong with it.
    """
    policy, errors = _checked(path)
    if policy is None:
        raise errors[0]
    return policy


def check_file(path: Path) -> list[PolicyError]:
    """Everything that is wrong with one policy file; empty when it is a good one.

    What it extends is looked for beside it and then among the built-in policies.
    """
    return _checked(path)[1]


def cautions_of(path: Path) -> list[str]:
    """What a good policy file had better not say; empty also for one that is wrong."""
    policy, _ = _checked(path)
    return [] if policy is None else cautions(policy)


def _checked(path: Path) -> tuple[Policy | None, list[PolicyError]]:
    try:
        name, document = _name_of(path), read_document(path)
        known = {name: document}
        parent = document.data.get("extends")
        if isinstance(parent, str) and _NAME.fullmatch(parent) and parent not in known:
            for directory in (path.parent, resources.policies()):
                if (directory / f"{parent}{SUFFIX}").is_file():
                    known[parent] = read_document(directory / f"{parent}{SUFFIX}")
                    break
    except PolicyError as exc:
        return None, [exc]
    policy, errors = _resolve(name, document, known)
    if policy is not None:
        policy, _ = _locked(policy, (path.parent, resources.policies()))
    return policy, errors


def _locked(policy: Policy, folders: Iterable[Path]) -> tuple[Policy, bytes]:
    """The policy with the lock of the packages that it adds, where one of the folders has it."""
    if policy.image.has_additions:
        for folder in folders:
            if lock := read_lock(policy.image.lock_file(folder)):
                return policy.model_copy(update={"image": policy.image.under(lock)}), lock
    return policy, b""


def seccomp_profile(path: Path | None = None) -> str:
    """The seccomp profile of every sandbox, built-in or of a file, as compact JSON.

    Raises:
        PolicyError: It cannot be read, or is not a list of what is allowed.
    """
    path = path or resources.policies() / "seccomp" / "default.json"
    try:
        profile = json.loads(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise PolicyError("is not a readable seccomp profile", file=str(path)) from exc
    if not isinstance(profile, dict) or profile.get("defaultAction") not in _DENIALS:  # pyright: ignore[reportUnknownMemberType]
        raise PolicyError(
            "does not refuse what it does not name",
            file=str(path),
            key="defaultAction",
            remedy="Write `SCMP_ACT_ERRNO`.",
        )
    return json.dumps(profile, separators=(",", ":"))


_DENIALS = ("SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS")


def _files(directory: Path) -> list[Path]:
    try:
        entries = sorted(directory.iterdir())
    except OSError as exc:
        raise PolicyError(
            f"cannot be read: {exc.strerror}",
            file=str(directory),
            remedy="Name a directory with policy files.",
        ) from exc
    misnamed = next((path for path in entries if path.suffix == ".yml"), None)
    if misnamed is not None:
        raise PolicyError(
            "would not be read", file=str(misnamed), remedy=f"Rename it to end in `{SUFFIX}`."
        )
    return [path for path in entries if path.suffix == SUFFIX]


def _name_of(path: Path) -> str:
    if path.suffix != SUFFIX or _NAME.fullmatch(path.stem) is None:
        raise PolicyError(
            "cannot be the file of a policy",
            file=str(path),
            remedy=f"Call it NAME{SUFFIX}, where NAME has 1 to 64 of a-z, 0-9 and `-`.",
        )
    return path.stem


def _resolve(
    name: str, document: Document, documents: Mapping[str, Document]
) -> tuple[Policy | None, list[PolicyError]]:
    """The policy with what it extends, or all that is wrong with it."""
    extends = document.data.get("extends")
    if extends is None:
        return _validate(name, document, document.data)

    def refused(reason: str, remedy: str) -> tuple[None, list[PolicyError]]:
        return None, [document.error(("extends",), reason, remedy=remedy)]

    parent_document = documents.get(extends) if isinstance(extends, str) else None
    if parent_document is None or extends == name:
        others = [each for each in documents if each != name]
        return refused(f"there is no policy {extends!r}", did_you_mean(extends, others))
    if "extends" in parent_document.data:
        return refused(
            f"{extends!r} extends another policy itself, and one level is all there is",
            f"Extend that one, and repeat here what {extends!r} says.",
        )
    parent, errors = _validate(extends, parent_document, parent_document.data)
    if parent is None:
        return None, errors
    inherited = {key: said for key, said in parent_document.data.items() if key != "pool"}
    policy, errors = _validate(name, document, overlay(inherited, document.data))
    if policy is None:
        return None, errors
    errors = [
        document.error(_with_indices(each.key), each.reason, remedy=each.remedy)
        for each in loosenings(policy, parent)
    ]
    return (None, errors) if errors else (policy, [])


def _validate(
    name: str, document: Document, data: dict[str, Any]
) -> tuple[Policy | None, list[PolicyError]]:
    if "name" in data:
        return None, [document.error(("name",), "is not a key: a policy has the name of its file")]
    try:
        policy = Policy.model_validate(
            {**data, "name": name}, context=FROM_FILE, by_alias=True, by_name=False
        )
    except ValidationError as exc:
        return None, [_translated(document, error) for error in exc.errors()]
    return policy, []


def _translated(document: Document, error: Mapping[str, Any]) -> PolicyError:
    key: Key = tuple(error["loc"])
    context = error.get("ctx", {})
    match error["type"]:
        case str(kind) if kind == WRONG:
            place = (*key, *_with_indices(context["at"]))
            return document.error(place, context["reason"], remedy=context["remedy"])
        case "extra_forbidden":
            return document.error(
                key, "is not a key here", remedy=did_you_mean(key[-1], _keys_beside(key))
            )
        case "missing":
            return document.error(key, "is missing")
        case "model_type" | "model_attributes_type":
            return document.error(key, "is not a mapping", remedy="Write `key: value` lines.")
        case _:
            return document.error(key, error["msg"])


def _with_indices(key: Iterable[str]) -> Key:
    """A key path in which the places in lists are numbers, as in a document."""
    return tuple(int(part) if part.isdecimal() else part for part in key)


def _keys_beside(key: Key) -> list[str]:
    """The keys that are known where this one stands."""
    model: type[BaseModel] = Policy
    for part in key[:-1]:
        if isinstance(part, int):
            continue
        fields = {file_key(model, name): info for name, info in model.model_fields.items()}
        found = fields[part].annotation
        if get_origin(found) is tuple:
            found = get_args(found)[0]
        if not (isinstance(found, type) and issubclass(found, BaseModel)):
            return []
        model = found
    return [file_key(model, name) for name in model.model_fields if name not in ("name", "locked")]
