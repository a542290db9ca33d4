#!/bin/sh
# Coverage-guided fuzzing of one TARGET for SECONDS (600 unless given), with libFuzzer. Needs a C++ compiler.
# New inputs go to target/fuzz/corpus/TARGET, crashes to tests/fuzz/crashes/TARGET.
set -eu
target=$1
seconds=${2:-600}
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-../../target}/fuzz"
# The sanitizer-coverage pass is not a stable option; the pinned compiler has it.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1"
host=$(rustc -vV | sed -n 's/^host: //p')
# With --target, build scripts and macros are built without the flags.
cargo build --manifest-path libfuzzer/Cargo.toml --target "$host"
mkdir -p "$CARGO_TARGET_DIR/corpus/$target" "crashes/$target"
STOCKADE_FUZZ_TARGET=$target exec "$CARGO_TARGET_DIR/$host/debug/stockade-libfuzzer" \
  -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -max_len=32768 -artifact_prefix="crashes/$target/" \
  "$CARGO_TARGET_DIR/corpus/$target" "corpus/$target"
