"""SSH beside OpenSSH's own server: logins, and bytes through exec and sftp, by OpenSSH's client."""
import os
import re
import shutil
import subprocess
import time

import bed

PORTS = {"sshd": 2201, "stockade": 2202}
BYTES = 500_000_000


def servers(world, folder):
    """Starts both; the programs to end."""
    for name in ["host", "user"]:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{folder}/{name}"], check=True)
    shutil.copy(f"{folder}/user.pub", f"{folder}/authorized_keys")
    os.makedirs("/run/sshd", exist_ok=True)
    sshd = ["/usr/sbin/sshd", "-D", "-f", "/dev/null", "-p", str(PORTS["sshd"]), "-h", f"{folder}/host"]
    for option in [f"AuthorizedKeysFile={folder}/authorized_keys", "StrictModes=no", "ListenAddress=127.0.0.1",
                   "UseDNS=no", "MaxStartups=100", "Subsystem=sftp internal-sftp"]:
        sshd += ["-o", option]
    os.makedirs(f"{folder}/work")
    os.chown(f"{folder}/work", bed.ORDINARY, bed.ORDINARY)
    ours = [world.stockade, "run", "--workspace", f"{folder}/work:rw", "--ssh", f"127.0.0.1:{PORTS['stockade']}",
            "--ssh-authorized-keys", f"{folder}/authorized_keys", "--ssh-host-key", f"{folder}/host",
            "--log-level", "error", "--", "sleep", "100000"]
    return [subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) for line in (sshd, ours)]


def client(folder, who, program="ssh"):
    options = ["-F", "none", "-o", f"Port={PORTS[who]}", "-o", f"IdentityFile={folder}/user"]
    for option in ["IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR",
                   "BatchMode=yes", "IdentityAgent=none"]:
        options += ["-o", option]
    return [program] + options


def timed(line, **more):
    began = time.perf_counter()
    done = subprocess.run(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **more)
    return time.perf_counter() - began, done.returncode, done.stderr.decode(errors="replace")


def wait(folder, who):
    for _ in range(200):
        if timed(client(folder, who) + ["root@127.0.0.1", "true"])[1] == 0:
            return
        time.sleep(0.05)
    bed.die(f"ssh: {who} does not answer")


def tasks(folder, who):
    """measure -> (command, its standard input, how the seconds become a figure)"""
    ssh = client(folder, who) + ["root@127.0.0.1"]
    sftp = client(folder, who, "sftp") + ["-q", "-b", "-", "root@127.0.0.1"]
    rate = lambda seconds: BYTES / seconds / 1e6
    # Each its own: sshd writes as root what the sandbox's user could not open again.
    there = f"{folder}/work/{who}"
    return {
        "login and `true`, ms": (ssh + ["true"], None, lambda seconds: seconds * 1000),
        "out through exec, MB/s": (ssh + [f"head -c {BYTES} /dev/zero"], None, rate),
        "in through exec, MB/s": (ssh + ["cat > /dev/null"], f"{folder}/zeros", rate),
        "sftp put, MB/s": (sftp, f"put {folder}/zeros {there}\n", rate),
        "sftp get, MB/s": (sftp, f"get {there} /dev/null\n", rate),
    }


def measure(world, args, raw):
    if not os.path.exists("/usr/sbin/sshd"):
        raw.missing.append("OpenSSH's sshd")
        return
    folder = f"{world.dir}/ssh"
    os.makedirs(folder)
    os.chmod(folder, 0o755)
    with open(f"{folder}/zeros", "wb") as f:
        f.truncate(BYTES)
    running = servers(world, folder)
    try:
        for who in PORTS:
            wait(folder, who)
        for turn in range(-1, args.rounds):
            for what in tasks(folder, "sshd"):
                for who in PORTS:
                    line, given, figure = tasks(folder, who)[what]
                    times = 10 if "login" in what else 1
                    seconds, code, said = one(line, given, times)
                    if code:
                        raw.failed(f"ssh: {what}, {who}", f"exit {code}: {re.sub(r'/tmp/[^ ]*', 'FILE', said)}")
                    elif turn >= 0:
                        raw.add(f"SSH: {what}", who, figure(seconds / times), base="sshd")
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def one(line, given, times):
    total = 0
    for _ in range(times):
        if given is None:
            seconds, code, said = timed(line, stdin=subprocess.DEVNULL)
        elif "\n" in given:
            seconds, code, said = timed(line, input=given.encode())
        else:
            with open(given, "rb") as source:
                seconds, code, said = timed(line, stdin=source)
        if code:
            return 1, code, said
        total += seconds
    return total, 0, ""
