# Logs every request: python.py LOG KEY CERT ADDRESS
import json, ssl, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

log, key, cert, address = sys.argv[1:]
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.any
        raise AttributeError(name)

    def chunks(self):
        size = 0
        while True:
            line = self.rfile.readline(1024).strip()
            length = int(line.split(b";")[0], 16)
            size += len(self.rfile.read(length))
            if length == 0:
                while self.rfile.readline(1024).strip():
                    pass
                return size
            self.rfile.readline(1024)

    def any(self):
        body, cut = 0, False
        try:
            if "chunked" in self.headers.get("transfer-encoding", "").lower():
                body = self.chunks()
            else:
                length = int(self.headers.get("content-length", 0))
                body = len(self.rfile.read(length))
                cut = body < length
        except ValueError:
            cut = True
        self.tell(cut, body)
        if cut:
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("content-length", "0" if self.command == "HEAD" else "2")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"ok")

    def tell(self, cut, body=0):
        line = f"{self.command} {self.path}" if not cut or self.command else self.raw_requestline.decode("latin-1")
        host = (getattr(self, "headers", None) or {}).get("host", "")
        with lock, open(log, "a") as out:
            out.write(json.dumps({"line": line, "host": host, "body": body, "cut": cut}) + "\n")

    # What it cannot read, it has seen all the same.
    def send_error(self, code, message=None, explain=None):
        with lock, open(log, "a") as out:
            line = self.raw_requestline.decode("latin-1").strip()
            out.write(json.dumps({"line": line, "host": "", "body": 0, "cut": False, "status": int(code)}) + "\n")
        super().send_error(code, message, explain)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass


class Secure(Server):
    # The handshake is the connection's own affair: in the listener it would stop the others.
    def get_request(self):
        stream, peer = super().get_request()
        return context.wrap_socket(stream, server_side=True, do_handshake_on_connect=False), peer


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
threading.Thread(target=Server((address, 80), Handler).serve_forever, daemon=True).start()
Secure((address, 443), Handler).serve_forever()
