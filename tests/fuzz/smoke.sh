#!/bin/sh
# Runs every fuzz target for SECONDS (2 unless given) and fails on the first that panics or hangs.
# Needs only the toolchain; what it builds is shared with the tests.
set -eu
cd "$(dirname "$0")/../.."
fuzzer=${STOCKADE_FUZZER:-${CARGO_TARGET_DIR:-target}/debug/stockade-fuzz}
# Named: it was built with the tests, whose features are not those of this package alone.
[ -n "${STOCKADE_FUZZER:-}" ] || cargo build --locked --quiet --workspace --bins
# An input that ends the process (stack overflow, abort) is found by running again with STOCKADE_FUZZ_KEEP=1:
# it is then in crashes/TARGET/last.
# Bounds the memory that one input may make a parser take.
ulimit -v 4194304
exec "$fuzzer" "${1:-2}"
