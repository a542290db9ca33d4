"""The verdict by itself: crates/policy/examples/verdict.rs."""
import os
import subprocess

import bed


def measure(world, args, raw):
    program = os.path.join(bed.TARGET, "release/examples/verdict")
    if not os.path.isfile(program):
        raw.failed("verdict", "target/release/examples/verdict was not built")
        return
    out = subprocess.run([program], capture_output=True, text=True, timeout=600)
    if out.returncode != 0:
        raw.failed("verdict", out.stderr.strip()[-300:])
    raw.note("verdict, printed by crates/policy/examples/verdict.rs", out.stdout.rstrip())
