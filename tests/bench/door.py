"""The door: TLS requests through a tunnel, and decrypted and judged, beside other proxies and beside no proxy at all."""
import json
import os
import shutil
import subprocess
import time

import bed

# scenario: (job, figures that are reported)
SCENARIOS = {
    "new connection, 1 client": ("new 1 {s} /1k", ["per_second", "p50_ms", "p99_ms"]),
    "new connection, 32 clients": ("new 32 {s} /1k", ["per_second"]),
    "keep-alive, 1 client": ("keep 1 {s} /1k", ["per_second", "p50_ms"]),
    "keep-alive, 32 clients": ("keep 32 {s} /1k", ["per_second"]),
    "HTTP/2, 32 streams": ("streams 32 {s} /1k", ["per_second", "p50_ms"]),
    "100 KiB keep-alive, 4 clients": ("keep 4 {s} /100k", ["per_second"]),
    "100 MiB": ("bulk 1 2 /100m", ["mb_s"]),
}
UNITS = {"per_second": "req/s", "p50_ms": "p50 ms", "p99_ms": "p99 ms", "mb_s": "MB/s"}
PEERS = ["smokescreen"]
CERTGEN = "/usr/lib/squid/security_file_certgen"


class Subject:
    """A load client in its place, and the processes of the proxy it goes through."""

    def __init__(self, world, name, command, proxy=()):
        self.name, self.proxy = name, list(proxy)
        self.log = f"{world.dir}/log/load-{name.replace(' ', '-').replace(',', '')}"
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=open(self.log, "w"), text=True, bufsize=1)
        if not self.process.stdout.readline():
            raise RuntimeError(open(self.log).read().strip()[-400:] or f"exit code {self.process.wait()}")

    def job(self, text):
        self.begin(text)
        return self.end()

    def begin(self, text):
        self.before = bed.cpu(self.proxy)
        self.process.stdin.write(text + "\n")

    def end(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"ended with exit code {self.process.wait(10)}: {open(self.log).read().strip()[-400:]}")
        result = json.loads(line)
        result["cpu"] = bed.cpu(self.proxy) - self.before
        return result

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def stockade(world, name, more, inspect=False, rules=0):
    """A load client inside a sandbox."""
    policy = world.policy(inspect=inspect, rules=rules)
    run = [world.stockade, "run", "--policy", policy, "--workspace", f"{world.dir}/share:ro",
           "--audit-log", f"{world.dir}/log/audit-{name.replace(' ', '-').replace(',', '')}.jsonl", "--log-level",
           "error", "--"]
    subject = Subject(world, name, run + [world.load] + target(world, "env" if inspect else None) + more)
    subject.proxy = [subject.process.pid]
    return subject


def target(world, ca=None):
    return ["--name", bed.NAME, "--port", str(bed.PORT), "--ca", ca or world.ca]


def subjects(world, raw):
    client = ["ip", "netns", "exec", "client", world.load] + target(world)
    found = {"direct": lambda: Subject(world, "direct", client + ["--address", f"{bed.UP_DIRECT}:{bed.PORT}"])}

    found["stockade, tunnel"] = lambda: stockade(world, "stockade, tunnel", ["--proxy", "env"])
    found["stockade, transparent"] = lambda: stockade(world, "stockade, transparent", [])
    if shutil.which("squid"):
        found["squid, tunnel"] = lambda: Subject(
            world, "squid", client + ["--proxy", f"{bed.HOST_CLIENT}:3129"], bed.tree(squid(world).pid))
    if shutil.which("tinyproxy"):
        found["tinyproxy, tunnel"] = lambda: Subject(
            world, "tinyproxy", client + ["--proxy", f"{bed.HOST_CLIENT}:3131"], bed.tree(tinyproxy(world).pid))
    raw.missing += [p for p in PEERS if not shutil.which(p)] + [p for p in ("squid", "tinyproxy") if not shutil.which(p)]
    found |= decrypting(world, raw)

    running = {}
    for name, make in found.items():
        try:
            running[name] = make()
        except (RuntimeError, OSError) as e:
            raw.failed(f"door: {name}", str(e))
    return running


def decrypting(world, raw):
    """Those that end TLS: Stockade with method and path rules, and peers, which have none."""
    mitm = f"{world.dir}/share/mitm.pem"
    shutil.copy(f"{world.dir}/ca/mitm.pem", mitm)
    client = ["ip", "netns", "exec", "client", world.load] + target(world, mitm)
    found = {"stockade, tls + l7": lambda: stockade(world, "stockade, tls + l7", ["--proxy", "env"], inspect=True)}
    if shutil.which("squid") and os.path.isfile(CERTGEN) and "--with-openssl" in bed.sh("squid", "-v"):
        found["squid ssl-bump, tls"] = lambda: Subject(
            world, "squid-bump", client + ["--proxy", f"{bed.HOST_CLIENT}:3130"], bed.tree(squid_bump(world).pid))
    else:
        raw.missing.append("squid with ssl-bump (package squid-openssl)")
    if shutil.which("mitmdump"):
        found["mitmproxy, tls"] = lambda: Subject(
            world, "mitmproxy", client + ["--proxy", f"{bed.HOST_CLIENT}:3133"], bed.tree(mitmdump(world).pid))
    else:
        raw.missing.append("mitmdump")
    return found


def mitmdump(world):
    folder = f"{world.dir}/mitm"
    os.mkdir(folder)
    with open(f"{folder}/mitmproxy-ca.pem", "w") as out:
        for part in ["key", "pem"]:
            with open(f"{world.dir}/ca/mitm.{part}") as f:
                out.write(f.read())
    # Large bodies streamed, or it would hold 100 MiB at once.
    process = world.start("mitmdump", [
        "mitmdump", "-q", "--mode", "regular", "--listen-host", bed.HOST_CLIENT, "--listen-port", "3133",
        "--set", f"confdir={folder}", "--set", f"ssl_verify_upstream_trusted_ca={world.ca}", "--set", "flow_detail=0",
        "--set", "stream_large_bodies=1m"])
    world.wait_for_port(bed.HOST_CLIENT, 3133)
    return process


def squid_bump(world):
    folder = f"{world.dir}/bump"
    os.mkdir(folder)
    with open(f"{folder}/mitm.pem", "w") as out:
        for part in ["pem", "key"]:
            with open(f"{world.dir}/ca/mitm.{part}") as f:
                out.write(f.read())
    bed.sh(CERTGEN, "-c", "-s", f"{folder}/ssl_db", "-M", "4MB")
    # squid drops to this user.
    bed.sh("chown", "-R", "proxy:proxy", folder)
    tls = f"""http_port {bed.HOST_CLIENT}:3130 ssl-bump generate-host-certificates=on dynamic_cert_mem_cache_size=4MB \
tls-cert={folder}/mitm.pem
sslcrtd_program {CERTGEN} -s {folder}/ssl_db -M 4MB
sslcrtd_children 2 startup=1 idle=1
acl step1 at_step SslBump1
ssl_bump peek step1
ssl_bump bump all
tls_outgoing_options cafile={world.ca}"""
    return start_squid(world, "squid-bump", 3130, tls)


def squid(world):
    return start_squid(world, "squid", 3129, f"http_port {bed.HOST_CLIENT}:3129")


def start_squid(world, name, port, listener):
    path = f"{world.dir}/{name}.conf"
    with open(path, "w") as f:
        f.write(f"""{listener}
cache deny all
cache_mem 8 MB
http_access allow all
hosts_file /etc/hosts
shutdown_lifetime 1 seconds
visible_hostname bench
via off
forwarded_for delete
max_filedescriptors 16384
pinger_enable off
pid_filename {world.dir}/run/{name}.pid
access_log none
cache_log {world.dir}/log/{name}.log
coredump_dir none
""")
    process = world.start(name, ["squid", "-N", "-n", name.replace("-", ""), "-f", path])
    world.wait_for_port(bed.HOST_CLIENT, port)
    return process


def tinyproxy(world):
    path = f"{world.dir}/tinyproxy.conf"
    with open(path, "w") as f:
        f.write(f"""User nobody
Group nogroup
Port 3131
Listen {bed.HOST_CLIENT}
Timeout 600
MaxClients 500
LogLevel Error
Allow 198.51.100.0/24
ConnectPort {bed.PORT}
""")
    process = world.start("tinyproxy", ["tinyproxy", "-d", "-c", path])
    time.sleep(0.5)
    world.wait_for_port(bed.HOST_CLIENT, 3131)
    return process


def measure(world, args, raw):
    running = subjects(world, raw)
    for name, subject in running.items():
        if subject.proxy:
            raw.add("memory before load, PSS MB of the proxy", name, bed.memory(subject.proxy)[0])
    for _ in range(args.rounds):
        for scenario, (job, figures) in SCENARIOS.items():
            for name, subject in list(running.items()):
                cell(raw, running, name, scenario, job.format(s=args.seconds), figures)
        refusals(raw, running)
    for name, subject in running.items():
        if subject.proxy:
            raw.add("memory after load, PSS MB of the proxy", name, bed.memory(subject.proxy)[0])
        subject.close()


def cell(raw, running, name, scenario, job, figures):
    subject = running[name]
    try:
        result = subject.job(job)
    except (RuntimeError, OSError) as e:
        raw.failed(f"{scenario}: {name}", str(e))
        del running[name]
        return
    if result["errors"]:
        raw.failed(f"{scenario}: {name}", f"{result['errors']} errors, first: {result['first_error']}")
    if not result["ok"]:
        return
    for figure in figures:
        raw.add(f"{scenario}, {UNITS[figure]}", name, result[figure], base="direct")
    if subject.proxy:
        raw.add(f"{scenario}, proxy CPU ms per request", name, result["cpu"] * 1000 / result["ok"])


def refusals(raw, running):
    """How soon the command learns that it may not."""
    for name, job, figure in [
        ("stockade, tunnel", "refused 1 200 203.0.113.77:9999", "refused connect, p50 ms"),
        ("stockade, tunnel", "denied 1 200 other.bench.test:443", "denied CONNECT, p50 ms"),
    ]:
        if name not in running:
            continue
        try:
            result = running[name].job(job)
        except (RuntimeError, OSError) as e:
            raw.failed(f"{figure}: {name}", str(e))
            del running[name]
            continue
        if result["errors"]:
            raw.failed(f"{figure}: {name}", f"{result['errors']} errors, first: {result['first_error']}")
        if result["ok"]:
            raw.add(figure, name, result["p50_ms"])
