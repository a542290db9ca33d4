"""Reaping: a command leaves thousands of orphans to PID 1, one after the other and then many that end at once; it ends
when none is left, alive or dead."""
import json
import shutil
import subprocess

ORPHANS, AT_ONCE = 50_000, 3_000
PEERS = ["tini", "dumb-init", "catatonit"]

# A child forks one more and ends: the grandchild is PID 1's.
SCRIPT = r"""
use strict; use Time::HiRes qw(time sleep);
my ($n, $burst) = @ARGV;
sub orphan { my $what = shift; my $p = fork // die "fork: $!";
    if (!$p) { my $g = fork // exit 1; $what->() if !$g; exit 0 }
    waitpid $p, 0; die "a child could not fork" if $?; }
sub zombies { opendir(my $d, "/proc") or die; my $z = 0;
    for (grep { /^\d+$/ } readdir $d) { open(my $f, "<", "/proc/$_/stat") or next; my $s = <$f> // next;
        $z++ if $s =~ /\) Z / } $z }
my $began = time; orphan(sub {}) for 1 .. $n; sleep 0.001 while zombies(); my $one_by_one = time - $began;
pipe(my $r, my $w) or die;
orphan(sub { close $w; sysread $r, my $x, 1 }) for 1 .. $burst;
close $r; $began = time; close $w; my $left = 1;
do { opendir(my $d, "/proc") or die; $left = grep { /^\d+$/ } readdir $d } while $left > 20;
printf "{\"one_by_one\": %.4f, \"at_once\": %.4f}\n", $one_by_one, time - $began;
"""


def cases(world):
    perl = ["perl", "-e", SCRIPT, str(ORPHANS), str(AT_ONCE)]
    pid_1 = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    found = {"stockade": [world.stockade, "supervise", "--workspace", f"{world.dir}/share:ro", "--log-level", "error",
                          "--"] + perl}
    for peer in PEERS:
        if shutil.which(peer):
            found[peer] = pid_1 + [peer, "--"] + perl
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
            raw.add(f"{ORPHANS} orphans, one by one, until none is left, s", name, told["one_by_one"], base="tini")
            raw.add(f"{AT_ONCE} orphans that end at once, until none is left, s", name, told["at_once"], base="tini")
    raw.missing += [name for name in PEERS if not shutil.which(name)]
