"""Start-up: wall time of `<sandbox> /bin/true`."""
import json
import os
import shutil
import subprocess
import time

import bed

# firejail isolates nothing inside another pid namespace, where this runs: it has no row.
PEERS = ["nsjail", "srt", "httpjail", "runsc", "openshell-sandbox"]


def cases(world, program=("/bin/true",)):
    """name -> (command, uid)"""
    program = list(program)
    stockade = [world.stockade, "run", "--workspace", f"{world.dir}/share:ro", "--log-level", "error"]
    door = stockade + ["--policy", world.policy()]
    found = {
        "bare": (program, 0),
        "unshare, all namespaces": (["unshare", "-Urnmuipf", "--mount-proc"] + program, 0),
        "stockade, as root": (door + ["--"] + program, 0),
        "stockade, rootless": (door + ["--"] + program, bed.ORDINARY),
    }
    if shutil.which("bwrap"):
        found["bubblewrap"] = (["bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev",
                                "--proc", "/proc", "--tmpfs", "/tmp"] + program, 0)
    if shutil.which("nsjail"):
        found["nsjail"] = (["nsjail", "-Mo", "-Q", "--chroot", "/", "--"] + program, 0)
    if shutil.which("srt"):
        # Installed by npm as @anthropic-ai/sandbox-runtime; it wants a settings file and a home that it may write.
        settings = f"{world.dir}/share/srt.json"
        with open(settings, "w") as f:
            json.dump({"network": {"allowedDomains": [bed.NAME], "deniedDomains": []},
                       "filesystem": {"denyRead": [], "allowWrite": [], "denyWrite": []}}, f)
        found["sandbox-runtime"] = (["srt", "--settings", settings] + program, 0)
    return found


def once(command, uid, log):
    """(milliseconds, exit code)"""
    kw = {"user": uid, "group": uid, "extra_groups": []} if uid else {}
    with open(log, "w") as err:
        began = time.perf_counter()
        # posix_spawn where no user changes; the bare row shows what the harness itself costs.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err,
                                   cwd="/", close_fds=False, **kw)
        code = process.wait()
        return (time.perf_counter() - began) * 1000, code


def measure(world, args, raw):
    failed = {}
    everyone = cases(world)
    for turn in range(-2, args.rounds * 4):
        for name, (command, uid) in everyone.items():
            if name in failed:
                continue
            time.sleep(0.02)
            ms, code = once(command, uid, f"{world.dir}/log/startup")
            if code != 0:
                failed[name] = open(f"{world.dir}/log/startup").read().strip()[-300:] or f"exit code {code}"
            elif turn >= 0:
                raw.add("start-up of /bin/true, ms", name, ms, base="bare")
    for name, why in failed.items():
        raw.failed(f"start-up: {name}", why)
    raw.missing += [name for name in PEERS if not shutil.which(name)] + ([] if shutil.which("bwrap") else ["bwrap"])
