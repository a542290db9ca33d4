#!/bin/sh
# Installs the clients of tests/clients.toml, and the packages of tests/e2e/tests/{protocols,credentials}, that registries
# have, into the directory given (target/clients unless named): by name, with the machine's own pip, npm, cargo and
# apt-get. What cannot be had is left out, and its row or test skipped.
set -u
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-$here/../../../target/clients}
mkdir -p "$dir" && dir=$(cd "$dir" && pwd)

get() { echo "== $*"; "$@" || echo "== not installed: $*" >&2; }

# The interpreter that the sandbox has; pip may belong to another of the same version.
version=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# Each replaces the bin directory: the one whose program is run comes last.
for package in requests httpx pip awscli boto3 grpcio uv; do
    get python3 -m pip install --quiet --upgrade --target "$dir/python" --python-version "$version" \
        --only-binary=:all: "$package"
done
# Protocols: each in a directory of its own, for their dependencies are many.
for package in 'mcp<2' 'gql[requests]' websockets; do
    get python3 -m pip install --quiet --upgrade --target "$dir/python-$(echo "$package" | tr -cd 'a-z' | sed 's/requests//')" \
        --python-version "$version" --only-binary=:all: "$package"
done
# Services: an OAuth token endpoint, and a store that verifies AWS signatures.
get python3 -m pip install --quiet --upgrade --target "$dir/python-oauth" --python-version "$version" \
    --only-binary=:all: authlib flask
get cargo install --quiet --locked --debug --root "$dir/s3s" --version 0.14.1 --features binary s3s-fs
get npm install --silent --no-fund --no-audit --prefix "$dir/node-mcp" @modelcontextprotocol/sdk@1 zod@3
get npm install --silent --no-fund --no-audit --prefix "$dir/node-graphql" graphql@16 graphql-yoga@5 \
    @graphql-yoga/plugin-apq@3 graphql-request@6 graphql-ws@5 ws@8
get npm install --silent --no-fund --no-audit --prefix "$dir/node-jsonrpc" jayson@4
get npm install --silent --no-fund --no-audit --prefix "$dir/node-awssdk" @aws-sdk/client-s3@3 @aws-sdk/s3-request-presigner@3
if command -v apt-get >/dev/null && mkdir -p "$dir/gh" && cd "$dir/gh"; then
    get apt-get download -q gh && dpkg -x gh_*.deb . && rm -f gh_*.deb
    cd "$here" || exit 1
fi
for package in yarn@1 pnpm@9 @yarnpkg/cli-dist@4 deno bun; do
    get npm install --silent --no-fund --no-audit --prefix "$dir/node-$(echo "$package" | tr -cd 'a-z')" "$package"
done
# code-server's own script wants ripgrep from GitHub, which nothing here needs; what it compiles is compiled by name.
vscode=$dir/node-codeserver/node_modules/code-server/lib/vscode
get npm install --silent --no-fund --no-audit --ignore-scripts --prefix "$dir/node-codeserver" code-server@4.100.3
if [ -d "$vscode" ]; then
    get npm rebuild --silent --prefix "$dir/node-codeserver" argon2
    get npm install --silent --no-fund --no-audit --ignore-scripts --omit=dev --prefix "$vscode"
    get npm rebuild --silent --prefix "$vscode" node-pty @vscode/spdlog native-watchdog @parcel/watcher
fi
chmod -R a+rX "$dir"
