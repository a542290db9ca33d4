"""A chat by `websockets`: what one says in a room, all in it hear: chat_server.py ADDRESS CERTIFICATE KEY LOG."""
import asyncio, ssl, sys

from websockets.asyncio.server import serve

address, cert, key, log = sys.argv[1:]
rooms = {}


def note(line):
    with open(log, "a") as file:
        file.write(line + "\n")


async def visit(socket):
    room = rooms.setdefault(socket.request.path, set())
    room.add(socket)
    note("joined " + socket.request.path)
    try:
        async for message in socket:
            note(message)
            for member in room:
                await member.send(message)
    finally:
        room.discard(socket)


async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    async with serve(visit, address, 443, ssl=context):
        print("ready", flush=True)
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
