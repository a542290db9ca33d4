"""The test bed: namespaces, addresses, a CA, an nginx upstream; and finding programs."""
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
STOCKADE = os.path.join(TARGET, "release", "stockade")
LOAD = os.path.join(TARGET, "bench-load", "release", "load")
NAME, PORT = "up.bench.test", 8443
# host <-> upstream, host <-> client of the peers, client of the peers <-> upstream (for the direct figure)
HOST_UP, UP = "192.0.2.1", "192.0.2.2"
HOST_CLIENT, CLIENT = "198.51.100.1", "198.51.100.2"
CLIENT_UP, UP_DIRECT = "203.0.113.1", "203.0.113.2"
ORDINARY = 1000
HZ = os.sysconf("SC_CLK_TCK")
INSIDE = "STOCKADE_BENCH_INSIDE"


def die(text):
    sys.exit(f"bench: {text}")


def build_load():
    """Builds the load client, before the network is left behind."""
    if os.environ.get(INSIDE):
        return
    env = dict(os.environ, CARGO_TARGET_DIR=os.path.join(TARGET, "bench-load"))
    manifest = os.path.join(ROOT, "tests/bench/load/Cargo.toml")
    subprocess.run(["cargo", "build", "--quiet", "--release", "--locked", "--manifest-path", manifest], env=env, check=True)


def enter():
    """Starts this program again in namespaces that vanish with it."""
    if os.environ.get(INSIDE):
        return
    if os.geteuid() != 0:
        die("needs root: it makes network namespaces and starts servers in them")
    for tool, package in [("unshare", "util-linux"), ("ip", "iproute2"), ("nginx", "nginx"), ("openssl", "openssl")]:
        if not shutil.which(tool):
            die(f"`{tool}` is not installed (package {package})")
    if not os.path.isfile(STOCKADE):
        die(f"{STOCKADE} does not exist: run `make bench`, which builds it")
    os.environ[INSIDE] = "1"
    wrap = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    os.execvp("unshare", wrap + [sys.executable] + sys.argv)


def sh(*words, **kw):
    return subprocess.run(words, check=True, capture_output=True, text=True, **kw).stdout


class Bed:
    """Two more network namespaces beside this one, an upstream, and a folder for what is written."""

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="stockade-bench-")
        os.chmod(self.dir, 0o755)
        for name in ["ca", "www", "log", "run", "share"]:
            os.mkdir(f"{self.dir}/{name}")
            os.chmod(f"{self.dir}/{name}", 0o777 if name in ("log", "run") else 0o755)
        self.started = []
        self._network()
        self._certificates()
        self._trust()
        self._upstream()
        # What the command inside needs, readable by everybody.
        self.load, self.ca = f"{self.dir}/share/load", f"{self.dir}/share/ca.pem"
        shutil.copy(LOAD, self.load)
        shutil.copy(f"{self.dir}/ca/ca.pem", self.ca)
        self.stockade = f"{self.dir}/stockade"
        shutil.copy(STOCKADE, self.stockade)
        os.chmod(self.stockade, 0o755)
        os.chown(f"{self.dir}/share", ORDINARY, ORDINARY)
        return self

    def __exit__(self, *_):
        for process in reversed(self.started):
            process.terminate()
        for process in self.started:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def _network(self):
        sh("mount", "--make-rprivate", "/")
        os.makedirs("/run/netns", exist_ok=True)
        sh("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
        for ns in ["up", "client"]:
            sh("ip", "netns", "add", ns)
            sh("ip", "-n", ns, "link", "set", "lo", "up")
        sh("ip", "link", "set", "lo", "up")
        self._veth(None, "to-up", HOST_UP, "up", "up-host", UP)
        self._veth(None, "to-client", HOST_CLIENT, "client", "client-host", CLIENT)
        self._veth("client", "client-up", CLIENT_UP, "up", "up-client", UP_DIRECT)
        # Thousands of new connections a second: else whoever is measured later finds no free port.
        for ns in [None, "up", "client"]:
            for key, value in [("tcp_tw_reuse", "1"), ("ip_local_port_range", "1024 65000"), ("tcp_max_tw_buckets", "4096")]:
                sh(*(["ip", "netns", "exec", ns] if ns else []), "sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{key}")
        with open(f"{self.dir}/hosts", "w") as hosts:
            hosts.write(f"127.0.0.1 localhost\n{UP} {NAME}\n")
        sh("mount", "--bind", f"{self.dir}/hosts", "/etc/hosts")

    def _trust(self):
        """A proxy that ends TLS verifies the upstream with the machine's roots: ours is one of them in here."""
        bundle = "/etc/ssl/certs/ca-certificates.crt"
        if os.path.isfile(bundle):
            with open(f"{self.dir}/roots.pem", "w") as out:
                for path in [bundle, f"{self.dir}/ca/ca.pem"]:
                    with open(path) as f:
                        out.write(f.read().rstrip() + "\n")
            sh("mount", "--bind", f"{self.dir}/roots.pem", bundle)

    @staticmethod
    def _veth(left, left_if, left_ip, right, right_if, right_ip):
        inside = (lambda ns: ["-n", ns] if ns else [])
        sh("ip", *inside(left), "link", "add", left_if, "type", "veth", "peer", "name", right_if, "netns", right)
        for ns, link, addr in [(left, left_if, left_ip), (right, right_if, right_ip)]:
            sh("ip", *inside(ns), "addr", "add", f"{addr}/30", "dev", link)
            sh("ip", *inside(ns), "link", "set", link, "up")

    def _certificates(self):
        ca = f"{self.dir}/ca"
        key = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"]
        # The upstream's authority, and the one of peers that end TLS.
        for name in ["ca", "mitm"]:
            sh(*key, f"{ca}/{name}.key")
            sh("openssl", "req", "-x509", "-new", "-key", f"{ca}/{name}.key", "-sha256", "-days", "2", "-subj",
               f"/CN=bench {name}", "-addext", "basicConstraints=critical,CA:TRUE", "-addext",
               "keyUsage=critical,keyCertSign,cRLSign", "-out", f"{ca}/{name}.pem")
        sh(*key, f"{ca}/leaf.key")
        sh("openssl", "req", "-new", "-key", f"{ca}/leaf.key", "-subj", f"/CN={NAME}", "-out", f"{ca}/leaf.csr")
        with open(f"{ca}/leaf.ext", "w") as ext:
            ext.write(f"subjectAltName=DNS:{NAME}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n")
        sh("openssl", "x509", "-req", "-in", f"{ca}/leaf.csr", "-CA", f"{ca}/ca.pem", "-CAkey", f"{ca}/ca.key",
           "-CAcreateserial", "-days", "2", "-sha256", "-extfile", f"{ca}/leaf.ext", "-out", f"{ca}/leaf.pem")

    def _upstream(self):
        for name, size in [("1k", 1 << 10), ("100k", 100 << 10), ("100m", 100 << 20)]:
            with open(f"{self.dir}/www/{name}", "wb") as f:
                f.write(os.urandom(min(size, 1 << 20)) * max(1, size >> 20))
        with open(f"{self.dir}/nginx.conf", "w") as conf:
            conf.write(f"""
worker_processes 1; daemon off; pid {self.dir}/run/nginx.pid; error_log {self.dir}/log/nginx.log; user root;
events {{ worker_connections 16384; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 100000000; keepalive_timeout 120s;
  default_type application/octet-stream;
  client_body_temp_path {self.dir}/run/b; proxy_temp_path {self.dir}/run/p; fastcgi_temp_path {self.dir}/run/f;
  uwsgi_temp_path {self.dir}/run/u; scgi_temp_path {self.dir}/run/s;
  ssl_certificate {self.dir}/ca/leaf.pem; ssl_certificate_key {self.dir}/ca/leaf.key; ssl_protocols TLSv1.2 TLSv1.3;
  server {{ listen {PORT} ssl http2 backlog=4096; server_name {NAME}; root {self.dir}/www; }}
}}
""")
        self.start("nginx", ["ip", "netns", "exec", "up", "nginx", "-c", f"{self.dir}/nginx.conf"])
        self.wait_for_port(UP, PORT)

    def start(self, name, command, **kw):
        """A server that ends with the bench."""
        log = open(f"{self.dir}/log/{name}.out", "w")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **kw)
        self.started.append(process)
        return process

    def wait_for_port(self, host, port):
        import socket
        for _ in range(200):
            try:
                socket.create_connection((host, port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        logs = {n: open(f"{self.dir}/log/{n}").read()[-500:] for n in os.listdir(f"{self.dir}/log")}
        die(f"nothing listens on {host}:{port}: {json.dumps(logs)}")

    def policy(self, endpoints=1, inspect=False, rules=0):
        """A policy that allows the upstream, as the last of `endpoints` endpoints: a tunnel, or with `inspect` requests
        that the last of `rules` + 1 method and path rules allows. Its file's name."""
        path = f"{self.dir}/policy-{endpoints}{'-inspect' if inspect else ''}-{rules}.yaml"
        others = "".join(f"{{methods: [PUT], paths: [/other{n}/**]}}, " for n in range(rules))
        files = "paths: [/1k, /100k, /100m]"
        how = f"allow: [{others}{{methods: [GET], {files}}}]" if inspect else "tls: passthrough"
        with open(path, "w") as f:
            f.write("version: 1\nnetwork:\n  endpoints:\n")
            for n in range(endpoints - 1):
                f.write(f"    other{n}: {{hosts: [host{n}.bench.test], ports: [443], tls: passthrough}}\n")
            f.write(f"    upstream: {{hosts: [{NAME}], ports: [{PORT}], {how}, private_addresses: [{UP}/32]}}\n")
        return path


def tree(pid):
    """pid and its descendants."""
    found = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as f:
                for child in f.read().split():
                    found += tree(int(child))
    except OSError:
        pass
    return found


def cpu(pids):
    """CPU seconds these processes have used."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return total / HZ


def memory(pids):
    """(PSS, RSS) in MB, summed."""
    pss = rss = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as f:
                for line in f:
                    if line.startswith("Pss:"):
                        pss += int(line.split()[1])
                    elif line.startswith("Rss:"):
                        rss += int(line.split()[1])
        except OSError:
            pass
    return pss / 1024, rss / 1024


def readable(stream):
    """Whether something was said."""
    return bool(select.select([stream], [], [], 0)[0])


def exe(pid):
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return ""
