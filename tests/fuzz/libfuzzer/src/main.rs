//! Runs the target that `STOCKADE_FUZZ_TARGET` names, guided by coverage.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use stockade_fuzz::{TARGETS, Target};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("STOCKADE_FUZZ_TARGET").expect("STOCKADE_FUZZ_TARGET names the target");
    TARGETS.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no target `{name}`"))
});

fuzz_target!(|data: &[u8]| {
    (TARGET.run)(data);
});
