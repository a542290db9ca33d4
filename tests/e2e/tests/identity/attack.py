"""Connections that change hands. `attack.py WHAT` prints one line per request: its name, the status, the reason."""

import array
import ctypes
import os
import re
import socket
import subprocess
import sys
import time

PROXY = ("127.0.0.1", 3128)
SITE = "192.0.2.10"
SELF = "attack.py"
EVIL = os.path.abspath("evil")


def request(name):
    return f"GET http://{SITE}/{name} HTTP/1.1\r\nHost: {SITE}\r\n\r\n".encode()


def answer(name, s):
    """Reads one answer of the proxy or the site."""
    s.settimeout(20)
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            part = s.recv(4096)
            if not part:
                break
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        while length and len(body) < int(length[1]):
            part = s.recv(4096)
            if not part:
                break
            body += part
    except OSError as e:
        print(name, "closed", type(e).__name__, flush=True)
        return
    status = head[9:12].decode() or "closed"
    reason = re.search(rb'"reason":"(\w+)"', body)
    print(name, status, reason[1].decode() if reason else "-", flush=True)


def ask(name, s):
    try:
        s.sendall(request(name))
    except OSError as e:
        print(name, "closed", type(e).__name__, flush=True)
        return
    answer(name, s)


def connect():
    return socket.create_connection(PROXY)


def evil(what, *fds, **more):
    """Another executable, which gets these descriptors."""
    numbers = [str(fd) for fd in fds]
    return subprocess.Popen([EVIL, SELF, what, *numbers], pass_fds=fds, **more)


def plain():
    s = connect()
    ask("first", s)
    time.sleep(0.1)
    ask("second", s)
    mapped = socket.socket(socket.AF_INET6)
    mapped.connect(("::ffff:127.0.0.1", PROXY[1]))
    ask("mapped", mapped)
    direct = socket.create_connection((SITE, 80))
    direct.sendall(f"GET /direct HTTP/1.1\r\nHost: {SITE}\r\n\r\n".encode())
    answer("direct", direct)


def once():
    ask("once", connect())


# An allowed program hands an open connection to another one.
def pass_on():
    s, (ours, theirs) = connect(), socket.socketpair()
    ask("first", s)
    child = evil("receive", theirs.fileno())
    socket.send_fds(ours, [b"x"], [s.fileno()])
    child.wait()


def receive():
    s = socket.socket(fileno=int(sys.argv[2]))
    _, fds, _, _ = socket.recv_fds(s, 1, 1)
    got = socket.socket(fileno=fds[0])
    time.sleep(0.2)
    ask("second", got)


# It becomes another one.
def becomes():
    s = connect()
    ask("first", s)
    os.set_inheritable(s.fileno(), True)
    os.execv(EVIL, [EVIL, SELF, "inherited", str(s.fileno())])


def inherited():
    ask("second", socket.socket(fileno=int(sys.argv[2])))


# It shares the connection with a child that runs another one.
def shares():
    s = connect()
    ask("first", s)
    child = evil("hold", s.fileno(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    time.sleep(0.2)
    ask("second", s)
    child.stdin.close()
    child.wait()


def hold():
    print("held", flush=True)
    sys.stdin.read()


# At the moment of the request the opener holds nothing: the connection is in a queue, or in a stranger's hands.
def queued():
    s, (ours, theirs) = connect(), socket.socketpair()
    ask("first", s)
    s.sendall(request("second")[:-2])
    child = evil("finish", theirs.fileno())
    socket.send_fds(ours, [b"x"], [s.fileno()])
    s.close()
    child.wait()


def finish():
    s = socket.socket(fileno=int(sys.argv[2]))
    _, fds, _, _ = socket.recv_fds(s, 1, 1)
    got = socket.socket(fileno=fds[0])
    got.sendall(b"\r\n")
    answer("second", got)


# Another program opens the connection and leaves only an allowed one to be seen with it.
def decoy():
    s = connect()
    s.sendall(request("first"))
    os.set_inheritable(s.fileno(), True)
    allowed = [sys.argv[2], SELF, "read", str(s.fileno())]
    subprocess.Popen(allowed, pass_fds=[s.fileno()]).wait()


def read():
    answer("first", socket.socket(fileno=int(sys.argv[2])))


# The opener ends; its child of the same executable goes on.
def outlives():
    if os.fork() == 0:
        s = connect()
        ask("first", s)
        if os.fork() == 0:
            time.sleep(0.3)
            ask("second", s)
        os._exit(0)
    os.wait()
    time.sleep(2)


def hides():
    libc = ctypes.CDLL(None, use_errno=True)
    print("unshare", libc.unshare(0x400), ctypes.get_errno(), flush=True)


# An executable without a path.
def memory():
    fd = os.memfd_create("usr/bin/python3.11", 0)
    with open(EVIL, "rb") as f:
        os.sendfile(fd, f.fileno(), 0, os.fstat(f.fileno()).st_size)
    try:
        os.execve(fd, ["python3", SELF, "once"], os.environ)
    except OSError as e:
        print("once", "refused", type(e).__name__, flush=True)


# A chain of ancestors that ends before the command.
def orphan():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(0.3)
            ask("orphan", connect())
            os._exit(0)
        os._exit(0)
    os.wait()
    time.sleep(2)


globals()[sys.argv[1]]()
