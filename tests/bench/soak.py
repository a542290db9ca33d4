"""A long-lived sandbox over 100,000 connections: descriptors and memory of the supervisor must not grow."""
import os

import bed
import door

CONNECTIONS = 100_000


def measure(world, args, raw):
    subject = door.stockade(world, "soak", ["--proxy", "env"])
    done, seen = 0, []
    while done < CONNECTIONS:
        result = subject.job("new 32 10 /1k")
        if result["errors"]:
            raw.failed("soak", f"{result['errors']} errors, first: {result['first_error']}")
            if not result["ok"]:
                return
        done += result["ok"]
        pid = subject.process.pid
        seen.append((bed.memory([pid])[0], len(os.listdir(f"/proc/{pid}/fd"))))
        raw.add("soak, PSS MB of the supervisor", "stockade", seen[-1][0])
        raw.add("soak, descriptors of the supervisor at rest", "stockade", seen[-1][1])
    first, last = seen[0], seen[-1]
    raw.note("soak", f"{done:,} connections: {first[0]:.1f} -> {last[0]:.1f} MB PSS, {first[1]} -> {last[1]} descriptors")
    subject.close()
