"""A long-lived sandbox over 100,000 connections and a million requests: descriptors and memory of the supervisor must not
grow."""
import os

import bed
import door

CONNECTIONS = 100_000
REQUESTS = 1_000_000


def measure(world, args, raw):
    tunnels = door.stockade(world, "soak", ["--proxy", "env"])
    over(raw, tunnels, ("connections", CONNECTIONS, ["new 32 10 /1k"]))
    requests = door.stockade(world, "soak of requests", ["--proxy", "env"], inspect=True)
    over(raw, requests, ("requests", REQUESTS, ["keep 32 10 /1k", "streams 32 10 /1k", "new 8 2 /1k"]))


def over(raw, subject, what):
    name, most, jobs = what
    done, seen = 0, []
    while done < most:
        for job in jobs:
            result = subject.job(job)
            if result["errors"]:
                raw.failed(f"soak of {name}", f"{result['errors']} errors, first: {result['first_error']}")
                if not result["ok"]:
                    return
            done += result["ok"]
        pid = subject.process.pid
        seen.append((bed.memory([pid])[0], len(os.listdir(f"/proc/{pid}/fd"))))
        raw.add(f"soak of {name}, PSS MB of the supervisor", "stockade", seen[-1][0])
        raw.add(f"soak of {name}, descriptors of the supervisor at rest", "stockade", seen[-1][1])
    first, last = seen[0], seen[-1]
    figures = f"{first[0]:.1f} -> {last[0]:.1f} MB PSS, {first[1]} -> {last[1]} descriptors"
    raw.note(f"soak of {name}", f"{done:,} {name}: {figures}")
    subject.close()
