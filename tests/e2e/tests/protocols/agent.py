"""An MCP client by the official Python SDK, with what the sandbox gives."""
import asyncio

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client


async def call(name, arguments, case):
    # A session for each: the SDK ends one whose request is refused.
    try:
        async with streamablehttp_client("https://tools.test/mcp") as (reading, writing, _):
            async with ClientSession(reading, writing) as session:
                await session.initialize()
                result = await asyncio.wait_for(session.call_tool(name, arguments), 10)
                print(f"{case}: {result.content[0].text}", flush=True)
    except BaseException as e:
        while isinstance(e, BaseExceptionGroup):
            e = e.exceptions[0]
        print(f"{case}: {type(e).__name__} {e}".replace("\n", " "), flush=True)


asyncio.run(call("read_file", {"path": "/data/a"}, "py_read"))
asyncio.run(call("read_file", {"path": "/etc/passwd"}, "py_outside"))
