#!/bin/bash
# Runs a command as an SSH session of a sandbox whose own command only waits: session.sh DIR STOCKADE... -- COMMAND...
# Output and exit code are the session's; what Stockade says goes to standard error, as ever.
dir=$1
shift
words=()
while [ "$1" != -- ]; do
    words+=("$1")
    shift
done
shift
ssh-keygen -q -t ed25519 -N '' -f "$dir/id" || exit 99
mkfifo "$dir/hold" || exit 99
exec 9<>"$dir/hold"
: >"$dir/said"
"${words[@]}" --ssh 127.0.0.1:0 --ssh-authorized-keys "$dir/id.pub" -- /bin/sh -c 'read -r _' \
    <"$dir/hold" 9>&- 2> >(exec tee "$dir/said" >&2 9>&-) &
stockade=$!
port=
until [ -n "$port" ]; do
    port=$(sed -n 's/.*ssh on 127\.0\.0\.1:\([0-9]*\),.*/\1/p' "$dir/said")
    # Not started: its own word and code are the answer.
    kill -0 $stockade 2>/dev/null || { wait $stockade; exit $?; }
    sleep .02
done
quoted=
for word; do quoted+="'${word//\'/\'\\\'\'}' "; done
ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o IdentityAgent=none -o IdentityFile="$dir/id" -o LogLevel=ERROR \
    -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -p "$port" sandbox@127.0.0.1 "$quoted" 9>&-
code=$?
echo >&9
wait $stockade || code=$?
exit $code
