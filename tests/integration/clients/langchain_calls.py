"""LangChain's MCP adapter calls execute_code with each line of code given; run in its environment.

It opens an MCP session for each call. Printed is what each call showed, as a list in JSON.
"""

import asyncio
import json
import sys

from langchain_mcp_adapters.client import MultiServerMCPClient


async def main(url: str, token: str, *lines: str) -> None:
    served = {
        "transport": "streamable_http",
        "url": url,
        "headers": {"Authorization": f"Bearer {token}"},
    }
    client = MultiServerMCPClient({"sandbox": served})
    (execute,) = [tool for tool in await client.get_tools() if tool.name == "execute_code"]
    shown = []
    for line in lines:
        blocks = await execute.ainvoke({"code": line})
        shown.append("\n".join(block["text"] for block in blocks if block["type"] == "text"))
    print(json.dumps(shown))


asyncio.run(main(*sys.argv[1:]))
