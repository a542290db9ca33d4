#!/bin/sh
# Installs the clients of tests/clients.toml that package registries have, into the directory given (target/clients
# unless named): by name, with the machine's own pip and npm. What cannot be had is left out, and its row skipped.
set -u
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-$here/../../../target/clients}
mkdir -p "$dir" && dir=$(cd "$dir" && pwd)

get() { echo "== $*"; "$@" || echo "== not installed: $*" >&2; }

# The interpreter that the sandbox has; pip may belong to another of the same version.
version=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# Each replaces the bin directory: the one whose program is run comes last.
for package in requests httpx pip awscli grpcio uv; do
    get python3 -m pip install --quiet --upgrade --target "$dir/python" --python-version "$version" \
        --only-binary=:all: "$package"
done
for package in yarn@1 pnpm@9 @yarnpkg/cli-dist@4 deno bun; do
    get npm install --silent --no-fund --no-audit --prefix "$dir/node-$(echo "$package" | tr -cd 'a-z')" "$package"
done
chmod -R a+rX "$dir"
