"""What the converters of model vendors make of a list of tools.

Run by the Python of an environment that has them (``tests/requirements/converters.in``): reads
lists of tools as JSON from standard input, by name, and writes by name what became of each tool. A
warning is an error here.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from typing import Any

import anthropic.lib.tools.mcp as anthropic_mcp
from agents.mcp import MCPServerStdio, MCPUtil
from google import genai
from google.genai import _mcp_utils as google_mcp
from google.genai import _transformers as google_transformers
from google.genai import models as google_models
from google.genai import types as google_types
from jsonschema import Draft202012Validator
from mcp.types import Tool


class _Refusing(logging.Handler):
    """Raises what is logged, from warnings on."""

    def emit(self, record: logging.LogRecord) -> None:
        raise AssertionError(record.getMessage())


def google(tools: list[Tool]) -> dict[str, Any]:
    """As the Gemini API gets them, by google-genai; both ways in which it converts."""
    client = genai.Client(api_key="none")
    google_mcp.mcp_to_gemini_tools(tools, is_agent_platform=True)
    made: dict[str, Any] = {}
    for tool in google_transformers.t_tools(client._api_client, list(tools)):
        sent = google_models._Tool_to_mldev(tool.model_dump(exclude_none=True))
        google_types.Tool.model_validate(sent)
        for declaration in json.loads(json.dumps(sent))["functionDeclarations"]:
            made[declaration["name"]] = declaration
    return made


def openai(tools: list[Tool]) -> dict[str, Any]:
    """As the OpenAI API gets them, by openai-agents in strict mode."""
    server = MCPServerStdio({"command": "none"})
    made: dict[str, Any] = {}
    for tool in tools:
        function = MCPUtil.to_function_tool(tool, server, convert_schemas_to_strict=True)
        made[function.name] = {
            "description": function.description,
            "parameters": function.params_json_schema,
            "strict": function.strict_json_schema,
        }
    return made


def anthropic(tools: list[Tool]) -> dict[str, Any]:
    """As the Claude API gets them, by anthropic."""
    session: Any = None  # used by calls alone
    return {tool.name: anthropic_mcp.async_mcp_tool(tool, session).to_dict() for tool in tools}


def main() -> None:
    """Convert every list with every converter."""
    warnings.simplefilter("error")
    logging.getLogger().addHandler(_Refusing(logging.WARNING))
    made: dict[str, Any] = {}
    for name, told in json.load(sys.stdin).items():
        tools = [Tool.model_validate(each) for each in told]
        for each in told:
            Draft202012Validator.check_schema(each["inputSchema"])
            Draft202012Validator.check_schema(each["outputSchema"])
        made[name] = {
            "google": google(tools),
            "openai": openai(tools),
            "anthropic": anthropic(tools),
        }
    json.dump(made, sys.stdout)


if __name__ == "__main__":
    main()
