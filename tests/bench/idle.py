"""Memory of a sandbox in which nothing happens: everything but the command itself."""
import subprocess
import time

import bed
import startup


def measure(world, args, raw):
    for _ in range(min(args.rounds, 3)):
        for name, (command, uid) in startup.cases(world, ("/bin/sleep", "30")).items():
            if name == "bare":
                continue
            kw = {"user": uid, "group": uid, "extra_groups": []} if uid else {}
            log = open(f"{world.dir}/log/idle", "w")
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **kw)
            time.sleep(1.5)
            pids = [pid for pid in bed.tree(process.pid) if bed.exe(pid) not in ("sleep", "coreutils")]
            if process.poll() is not None:
                raw.failed(f"idle: {name}", open(f"{world.dir}/log/idle").read().strip()[-300:])
                continue
            before = bed.cpu(pids)
            time.sleep(1.0)
            pss, rss = bed.memory(pids)
            raw.add("idle memory, PSS MB in all", name, pss, base="bubblewrap")
            raw.add("idle memory, RSS MB in all", name, rss, base="bubblewrap")
            raw.add("idle CPU, ms in a second", name, (bed.cpu(pids) - before) * 1000)
            process.terminate()
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
