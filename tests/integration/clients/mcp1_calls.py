"""The official client of 1.x calls execute_code with each line of code given; run in its
environment.

Printed is what each call showed, as a list in JSON. With ``--each`` every call has a conversation
of its own, else they share one.
"""

import asyncio
import json
import sys
from contextlib import asynccontextmanager

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client


@asynccontextmanager
async def conversation(url, token):
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        streamablehttp_client(url, headers=headers) as (reader, writer, _),
        ClientSession(reader, writer) as session,
    ):
        await session.initialize()
        yield session


async def shown_by(session, line):
    result = await session.call_tool("execute_code", {"code": line})
    return "\n".join(block.text for block in result.content if block.type == "text")


async def main(url, token, *lines):
    shown = []
    if lines[0] == "--each":
        for line in lines[1:]:
            async with conversation(url, token) as session:
                shown.append(await shown_by(session, line))
    else:
        async with conversation(url, token) as session:
            for line in lines:
                shown.append(await shown_by(session, line))
    print(json.dumps(shown))


asyncio.run(main(*sys.argv[1:]))
