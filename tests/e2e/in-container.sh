#!/bin/bash
# Runs the hostile tests in a container of Docker, as an ordinary user without a capability: in-container.sh [PROFILE].
# The container has this machine's programs, read-only, and what docs/containers.md says that it needs. Nothing is fetched.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
target=$(cd "${CARGO_TARGET_DIR:-$root/target}" && pwd)
tests=$(find "$target/${1:-debug}/deps" -maxdepth 1 -name 'hostile-*' -type f -perm -1 ! -name '*.d' -printf '%T@ %p\n' |
    sort -rn | head -1 | cut -d' ' -f2)
[ -n "$tests" ] || { echo "in-container: the tests are not built: cargo build --workspace --all-targets" >&2; exit 1; }

image=$(mktemp -d)
trap 'rm -rf "$image"' EXIT
mkdir -p "$image"/{usr,etc,proc,sys,dev,run,home,root,work,tmp,var/tmp}
chmod 1777 "$image"/{tmp,var/tmp}
for dir in bin sbin lib lib64; do ln -s "usr/$dir" "$image/$dir"; done
cp /etc/passwd /etc/group /etc/nsswitch.conf "$image/etc/"
tar -C "$image" -c . | docker import - stockade-in-container:1 >/dev/null

# Left out: two that prepare what an ordinary user in a container may not (a range of groups, a file of accounts), and one
# whose control reads a process that the container's filter keeps from everybody.
docker run --rm --user 1000:1000 --network none \
    --security-opt "seccomp=$root/deploy/docker/seccomp.json" --security-opt systempaths=unconfined \
    -v /usr:/usr:ro -v /etc/ssl:/etc/ssl:ro -v /etc/alternatives:/etc/alternatives:ro \
    -v "$root:$root:ro" -v "$target:$target:ro" -w "$root/tests/e2e" \
    -e PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin -e HOME=/tmp stockade-in-container:1 \
    "$tests" --test-threads 2 --skip net::other_protocols_carry_nothing_out \
    --skip start::account_files_that_lie_stop_the_start --skip outsiders::processes_outside_are_not_to_be_seen
