"""A gRPC client by grpcio, with what the sandbox gives: each kind of call, allowed and denied, on one connection."""
import time

import grpc

credentials = grpc.ssl_channel_credentials()
with grpc.secure_channel("shop.test:443", credentials) as channel:

    def say(name, call):
        try:
            print(f"{name}: {call()}")
        except grpc.RpcError as e:
            print(f"{name}: {e.code().name} {e.details()}")

    text = lambda replies: " ".join(reply.decode() for reply in replies)
    unary = lambda path: channel.unary_unary(path)(b"x", timeout=20).decode()
    say("get", lambda: unary("/shop.Catalogue/Get"))
    say("watch", lambda: text(channel.unary_stream("/shop.Catalogue/Watch")(b"x", timeout=20)))
    say("add", lambda: channel.stream_unary("/shop.Catalogue/Add")(iter([b"a", b"b", b"c"]), timeout=20).decode())

    def talk():
        # Each message waits for the answer to the one before: nothing on the way may wait for the end of the stream.
        heard = []

        def messages():
            for n in range(3):
                yield b"%d" % n
                while len(heard) <= n:
                    time.sleep(0.005)

        for reply in channel.stream_stream("/shop.Catalogue/Talk")(messages(), timeout=20):
            heard.append(reply.decode())
        return " ".join(heard)

    say("talk", talk)
    say("drop", lambda: unary("/shop.Catalogue/Drop"))
    say("orders", lambda: unary("/shop.Orders/Get"))
    say("denied_stream", lambda: text(channel.stream_stream("/shop.Orders/Talk")(iter([b"x"]), timeout=20)))
    say("after", lambda: unary("/shop.Catalogue/Get"))
