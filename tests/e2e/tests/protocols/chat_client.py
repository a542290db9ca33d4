"""Two who talk in a chat by `websockets`, with what the sandbox gives; and one who sends JSON-RPC."""
import json

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

with connect("wss://chat.test/rooms/open") as ann, connect("wss://chat.test/rooms/open") as bob:
    ann.send("hello bob")
    print("heard:", bob.recv(timeout=20))
    bob.send("x" * 70000)
    print("echo:", ann.recv(timeout=20) + ",", len(ann.recv(timeout=20)))
try:
    connect("wss://chat.test/rooms/closed")
    print("closed: entered")
except InvalidStatus as e:
    print("closed:", e, json.loads(e.response.body)["detail"])

call = lambda method: json.dumps({"jsonrpc": "2.0", "id": 1, "method": method})
with connect("wss://rpc.test/") as rpc:
    rpc.send(call("say"))
    print("say:", rpc.recv(timeout=20))
    rpc.send(call("kick"))
    try:
        print("kick:", rpc.recv(timeout=20))
    except ConnectionClosed as e:
        print("kick:", e)
