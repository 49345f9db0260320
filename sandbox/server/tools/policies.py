"""The policies that a caller may name."""

from __future__ import annotations

from typing import Annotated

from mcp_types import CallToolResult
from pydantic import BaseModel

from sandbox.container.manifests import Manifest
from sandbox.policy import LivePolicies, Policy, explain
from sandbox.server.desk import caller_of
from sandbox.server.http.place import Http
from sandbox.server.missing import images_of
from sandbox.server.tool import CallContext, ToolGroup, reply, tool
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller


class Allowance(BaseModel):
    """What a policy allows for one thing, and which key of it says so."""

    topic: str
    text: str
    rule: str


class PolicyInfo(BaseModel):
    """A policy in words."""

    name: str
    description: str
    is_default: bool
    """Whether it is taken when none is named."""
    digest: str
    """SHA-256 of all that it says."""
    allows: list[Allowance]


class PolicyList(BaseModel):
    """The policies of a controller."""

    policies: list[PolicyInfo]
    problem: str = ""
    """Why the policy files as they are now are not in force, but those of before; else empty."""


class PolicyTools(ToolGroup):
    """The tool that tells of policies."""

    @tool(
        "List policies",
        reads=True,
        http=Http("GET", "/policies", items="policies"),
    )
    async def list_policies(self, ctx: CallContext) -> Annotated[CallToolResult, PolicyList]:
        """List the policies that open_session takes, and what each allows."""
        found = policies_of(self._manager, caller_of(ctx))
        lines = [_lines(info) for info in found.policies]
        problem = [f"The policy files are wrong now: {found.problem}"] if found.problem else []
        return reply(found, "\n".join([*lines, *problem]))


def policies_of(manager: SessionManager, caller: Caller) -> PolicyList:
    """The policies that a caller may name, in words."""
    policies = manager.policies
    images = images_of(policies, caller)
    names = [name for name in policies.names() if caller.may_use(name)]
    default = policies.default if caller.policies is None else next(iter(caller.policies), "")
    problem = policies.problem if isinstance(policies, LivePolicies) else None
    return PolicyList(
        policies=[
            _info(policies.get(name), images[name], is_default=name == default) for name in names
        ],
        problem="" if problem is None else problem.message,
    )


def _info(policy: Policy, image: Manifest, *, is_default: bool) -> PolicyInfo:
    told = [Allowance(topic=s.topic, text=s.text, rule=s.rule) for s in explain(policy)]
    return PolicyInfo(
        name=policy.name,
        description=policy.description,
        is_default=is_default,
        digest=policy.digest,
        allows=[Allowance(topic="image", text=str(image), rule="image"), *told],
    )


def _lines(info: PolicyInfo) -> str:
    head = f"{info.name}{' (default)' if info.is_default else ''}: {info.description}"
    return "\n".join([head, *(f"  {each.topic}: {each.text}" for each in info.allows)])
