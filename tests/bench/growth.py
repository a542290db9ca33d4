"""How cost grows: with endpoints, rules, open connections, size of bodies, sandboxes on one machine."""
import subprocess
import time

import bed
import door
import startup


def measure(world, args, raw):
    endpoints(world, args, raw)
    connections(world, raw)
    rules(world, args, raw)
    bodies(world, raw)
    sandboxes(world, raw)


def endpoints(world, args, raw):
    counts = [1, 10, 100, 1000, 10000]
    for _ in range(args.rounds):
        for count in counts:
            command = [world.stockade, "run", "--policy", world.policy(count), "--workspace", f"{world.dir}/share:ro",
                       "--log-level", "error", "--", "/bin/true"]
            ms, code = startup.once(command, 0, f"{world.dir}/log/growth")
            if code == 0:
                raw.add("start-up by endpoints of the policy, ms", f"{count:,}", ms, base="1")
            else:
                raw.failed(f"start-up with {count} endpoints", open(f"{world.dir}/log/growth").read().strip()[-300:])


def connections(world, raw):
    try:
        subject = door.stockade(world, "growth", ["--proxy", "env"])
    except RuntimeError as e:
        raw.failed("growth by connections", str(e))
        return
    for count in [1, 10, 100, 1000]:
        subject.begin(f"hold {count} 2 /1k")
        time.sleep(1 + count / 500)
        pss, _ = bed.memory(subject.proxy)
        result = subject.end()
        if result["errors"]:
            raw.failed(f"{count} open tunnels", f"{result['errors']} errors, first: {result['first_error']}")
        raw.add("memory by open tunnels, PSS MB of the supervisor", f"{count:,}", pss, base="1")
    subject.close()


def rules(world, args, raw):
    """Requests that the last of so many rules allows; remembered verdicts are the usual case, so both."""
    running = {}
    for count in [1, 10, 100, 1000]:
        try:
            running[count] = door.stockade(world, f"rules {count}", ["--proxy", "env"], inspect=True, rules=count - 1)
        except RuntimeError as e:
            raw.failed(f"growth by rules: {count}", str(e))
    for _ in range(args.rounds):
        for count, subject in running.items():
            # A query of its own makes each request a new question.
            for what, path in [("remembered", "/1k"), ("new", "/1k?{n}")]:
                result = subject.job(f"keep 1 {args.seconds} {path}")
                if result["errors"]:
                    raw.failed(f"{count} rules", f"{result['errors']} errors, first: {result['first_error']}")
                if result["ok"]:
                    raw.add(f"request by rules, {what}, p50 ms", f"{count:,}", result["p50_ms"], base="1")
    for subject in running.values():
        subject.close()


def bodies(world, raw):
    subject = door.stockade(world, "bodies", ["--proxy", "env"], inspect=True)
    for size in ["1k", "100k", "100m"]:
        for _ in range(3):
            subject.begin(f"bulk 4 4 /{size}")
            peak = 0
            while not bed.readable(subject.process.stdout):
                peak = max(peak, bed.memory(subject.proxy)[0])
                time.sleep(0.02)
            result = subject.end()
            if result["errors"]:
                raw.failed(f"bodies of {size}", f"{result['errors']} errors, first: {result['first_error']}")
            raw.add("memory by size of bodies, peak PSS MB of the supervisor, 4 at once", size, peak, base="1k")
    subject.close()


def sandboxes(world, raw):
    for count in [1, 10, 50]:
        command = [world.stockade, "run", "--policy", world.policy(), "--workspace", f"{world.dir}/share:ro",
                   "--log-level", "error", "--", "/bin/sh", "-c", "echo ready; read x"]
        began = time.perf_counter()
        running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                   for _ in range(count)]
        ready = [process.stdout.readline() == b"ready\n" for process in running]
        ms = (time.perf_counter() - began) * 1000
        pids = [pid for process in running for pid in bed.tree(process.pid) if bed.exe(pid) == "stockade"]
        pss, _ = bed.memory(pids)
        for process in running:
            process.stdin.close()
            process.wait(20)
        if not all(ready):
            raw.failed(f"{count} sandboxes at once", f"{ready.count(False)} did not start")
            continue
        raw.add("sandboxes started at once, ms each", f"{count}", ms / count, base="1")
        raw.add("sandboxes running at once, PSS MB each", f"{count}", pss / count, base="1")
