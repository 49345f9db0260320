"""The egress gateway: the only way out of a sandbox, and it decides in the controller.

Every outgoing connection of a session is a stream of its link. :class:`Gateway` reads what the
client inside asks for, judges it by the session's policy (``sandbox.egress.rules``), resolves and
connects by itself, and carries the bytes. ``docs/egress.md`` says how a connection is decided.
"""

from sandbox.egress.gateway import Gateway
from sandbox.egress.machine import Outfit, machine_egress, outfit
from sandbox.egress.models import NetworkInfo, Tightening
from sandbox.egress.outward import SystemDialer, SystemResolver, Unreachable
from sandbox.egress.surroundings import Answer, Approver, Egress, Question, SecretSource, Seen

__all__ = [
    "Answer",
    "Approver",
    "Egress",
    "Gateway",
    "NetworkInfo",
    "Outfit",
    "Question",
    "SecretSource",
    "Seen",
    "SystemDialer",
    "SystemResolver",
    "Tightening",
    "Unreachable",
    "machine_egress",
    "outfit",
]
