"""A gRPC server by grpcio, without generated code: shop.py ADDRESS CERTIFICATE KEY LOG. Messages are bytes."""
import sys, time
from concurrent import futures

import grpc

address, cert, key, log = sys.argv[1:]


def note(line):
    with open(log, "a") as file:
        file.write(line + "\n")


def get(request, context):
    return b"got " + request


def watch(request, context):
    for n in range(3):
        yield request + b" %d" % n
        time.sleep(0.05)


def add(requests, context):
    return b"added %d" % sum(1 for _ in requests)


def talk(requests, context):
    for request in requests:
        note("heard " + request.decode())
        yield b"heard " + request


class Shop(grpc.GenericRpcHandler):
    def service(self, details):
        note(details.method)
        return {
            "/shop.Catalogue/Get": grpc.unary_unary_rpc_method_handler(get),
            "/shop.Catalogue/Watch": grpc.unary_stream_rpc_method_handler(watch),
            "/shop.Catalogue/Add": grpc.stream_unary_rpc_method_handler(add),
            "/shop.Catalogue/Talk": grpc.stream_stream_rpc_method_handler(talk),
            "/shop.Catalogue/Drop": grpc.unary_unary_rpc_method_handler(get),
            "/shop.Orders/Get": grpc.unary_unary_rpc_method_handler(get),
        }.get(details.method)


server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[Shop()])
pair = (open(key, "rb").read(), open(cert, "rb").read())
assert server.add_secure_port(address + ":443", grpc.ssl_server_credentials([pair]))
server.start()
print("ready", flush=True)
server.wait_for_termination()
