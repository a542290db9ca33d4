"""Reaping: a command leaves thousands of orphans to PID 1, and ends when none is left, alive or dead."""
import json
import shutil
import subprocess


ORPHANS = 50_000
PEERS = ["tini", "dumb-init", "catatonit"]

# Each child forks one more and ends at once: the grandchild is PID 1's. At most a thousand wait at a time.
SCRIPT = r"""
use strict; use Time::HiRes qw(time sleep);
my $n = shift; my $began = time;
sub left { opendir(my $d, "/proc") or die; my $z = 0;
    for (grep { /^\d+$/ } readdir $d) { open(my $f, "<", "/proc/$_/stat") or next; my $s = <$f> // next;
        $z++ if $s =~ /\) Z /; } $z }
for my $i (1 .. $n) {
    my $p = fork // die "fork: $!";
    if (!$p) { my $g = fork // exit 1; exit 0 }
    waitpid $p, 0; die "a child could not fork" if $?;
}
my $forked = time; sleep 0.002 while left();
printf "{\"seconds\": %.4f, \"after\": %.4f}\n", time - $began, time - $forked;
"""


def cases(world):
    perl = ["perl", "-e", SCRIPT, str(ORPHANS)]
    pid_1 = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    found = {"stockade": [world.stockade, "supervise", "--workspace", f"{world.dir}/share:ro", "--log-level", "error",
                          "--"] + perl}
    for peer, words in [("tini", ["tini", "--"]), ("dumb-init", ["dumb-init", "--"]), ("catatonit", ["catatonit", "--"])]:
        if shutil.which(peer):
            found[peer] = pid_1 + words + perl
    return found


def measure(world, args, raw):
    everyone = cases(world)
    for turn in range(max(1, args.rounds // 2)):
        for name, command in everyone.items():
            done = subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode != 0:
                raw.failed(f"reaping: {name}", (done.stderr or f"exit code {done.returncode}").strip()[-300:])
                continue
            told = json.loads(done.stdout)
            raw.add(f"{ORPHANS} orphans until none is left, s", name, told["seconds"], base="tini")
            raw.add("of it after the last fork, s", name, told["after"], base="tini")
    raw.missing += [name for name in PEERS if not shutil.which(name)]
