#!/bin/sh
# Runs every fuzz target for SECONDS (2 unless given) and fails on the first that panics or hangs.
# Needs only the toolchain; what it builds is shared with the tests.
set -eu
cd "$(dirname "$0")/../.."
cargo build --locked --quiet --package stockade-fuzz
# Bounds the memory that one input may make a parser take.
ulimit -v 4194304
exec "${CARGO_TARGET_DIR:-target}/debug/stockade-fuzz" "${1:-2}"
