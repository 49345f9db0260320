"""Having a container measured from inside, and judged."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import anyio
from pydantic import ValidationError

from sandbox.container.checks import NotProved
from sandbox.container.examination import Proof, examine
from sandbox.container.features import Feature
from sandbox.container.measurement import Facts
from sandbox.container.spec import ContainerSpec
from sandbox.errors import PolicyNotEnforced
from sandbox.link.link import Link

TIMEOUT_S = 10.0


async def prove(
    link: Link,
    spec: ContainerSpec,
    directories: Mapping[str, tuple[int, int]] | None = None,
    *,
    reports: AbstractSet[Feature],
) -> Proof:
    """Have the supervisor measure its container, and compare that with the spec.

    Args:
        directories: The device and inode that each mount must be, by its target; those that are
            not known are not compared.
        reports: What the engine's inspection tells; what is not in here must be decided inside.

    Raises:
        PolicyNotEnforced: Something is weaker than the spec (:class:`NotProved`), or was not
            measured.
        LinkLost: The link ended.
    """
    proof = await measure(link, spec, directories, reports=reports)
    if proof.failed:
        said = "; ".join(
            f"{check.name} must be {check.expected}, is {check.found}" for check in proof.failed
        )
        raise NotProved(
            f"The engine did not apply the policy: {said}.",
            proof.checks,
            is_measured=True,
            remedy="`sandbox doctor` says what this engine can do.",
        )
    return proof


async def measure(
    link: Link,
    spec: ContainerSpec,
    directories: Mapping[str, tuple[int, int]] | None = None,
    *,
    reports: AbstractSet[Feature],
) -> Proof:
    """The same without judging: see :attr:`Proof.failed`.

    Raises:
        PolicyNotEnforced: It was not measured.
        LinkLost: The link ended.
    """
    try:
        with anyio.fail_after(TIMEOUT_S):
            places = [mount.target for mount in spec.mounts]
            answer = await link.call("probe", **({"places": places} if places else {}))
        return examine(spec, Facts.model_validate(answer), directories, reports=reports)
    except TimeoutError as exc:
        raise PolicyNotEnforced(
            f"The sandbox did not answer the probe within {TIMEOUT_S:g} s."
        ) from exc
    except ValidationError as exc:
        wrong = exc.errors()[0]
        place = ".".join(str(part) for part in wrong["loc"])
        raise PolicyNotEnforced(
            f"The sandbox's facts do not tell enough: {place}: {wrong['msg']}."
        ) from exc
