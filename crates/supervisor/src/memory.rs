//! The program's memory.

use stockade_sys::{settle, wipe::Wiping};

#[global_allocator]
static MEMORY: Wiping = Wiping::new();

/// From now on what is freed is wiped: buffers of HTTP and TLS have carried what the command must not have.
pub(crate) fn keeps_secrets() {
    MEMORY.start();
}

/// Gives back what the start needed and running does not: most of the code, and what the allocator keeps for later.
pub(crate) fn settle() {
    // What fails here costs memory, nothing else.
    let _ = settle::unmap_program();
    settle::trim();
}
