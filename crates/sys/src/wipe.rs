//! An allocator that leaves nothing in what it frees.
//!
//! Libraries for HTTP and TLS copy what they carry into buffers of their own and free them as they are. The allocator is
//! the one place that sees all of them.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, Ordering},
};

/// Memory of `A`, overwritten with zeros when it is freed, once [`start`](Self::start) was called.
#[derive(Debug)]
pub struct Wiping<A = System> {
    inner: A,
    on: AtomicBool,
}

impl Wiping {
    /// The system's allocator; it wipes nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { inner: System, on: AtomicBool::new(false) }
    }
}

impl Default for Wiping {
    fn default() -> Self {
        Self::new()
    }
}

impl<A> Wiping<A> {
    /// Wipes what is freed from now on, for the rest of the process.
    pub fn start(&self) {
        self.on.store(true, Ordering::Relaxed);
    }

    fn wipes(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }
}

// SAFETY: every block comes from `A` and goes back to it with the layout that it was made with.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Wiping<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.inner.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.inner.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.wipes() {
            // SAFETY: the caller gives up a block of this size. A plain write before `free` would be optimised away.
            unsafe { libc::explicit_bzero(block.cast(), layout.size()) };
        }
        // SAFETY: the caller's promise.
        unsafe { self.inner.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.wipes() {
            // SAFETY: the caller's promise.
            return unsafe { self.inner.realloc(block, layout, size) };
        }
        // What `A` would free by moving it, or by cutting it off, it would free as it is.
        // SAFETY: the caller promises that `size`, rounded up to the alignment, does not overflow.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: the caller promises that `size` is not zero.
        let moved = unsafe { self.inner.alloc(wanted) };
        if !moved.is_null() {
            // SAFETY: both are blocks of at least so many bytes, and one is new.
            unsafe { moved.copy_from_nonoverlapping(block, layout.size().min(size)) };
            // SAFETY: the caller gives it up when the result is not null.
            unsafe { self.dealloc(block, layout) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use std::{slice, sync::Mutex};

    use super::*;

    /// Keeps what was in the blocks that it got back.
    #[derive(Default)]
    struct Seen(Mutex<Vec<Vec<u8>>>);

    // SAFETY: the system's allocator in every respect.
    unsafe impl GlobalAlloc for Seen {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's promise.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: it is still the caller's.
            let bytes = unsafe { slice::from_raw_parts(block, layout.size()) };
            self.0.lock().unwrap().push(bytes.to_vec());
            // SAFETY: the caller's promise.
            unsafe { System.dealloc(block, layout) }
        }
    }

    /// Fills a block of 8, makes it 16 and then 4 long, and frees it; says what each block held when it was freed.
    fn freed(wiping: bool) -> Vec<Vec<u8>> {
        let memory = Wiping { inner: Seen::default(), on: AtomicBool::new(wiping) };
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        // SAFETY: each block is used within its size and freed once, with its layout.
        unsafe {
            let block = memory.alloc(layout(8));
            block.copy_from_nonoverlapping(b"password".as_ptr(), 8);
            let block = memory.realloc(block, layout(8), 16);
            assert_eq!(slice::from_raw_parts(block, 8), b"password", "kept as it grows");
            block.add(8).write_bytes(b'x', 8);
            let block = memory.realloc(block, layout(16), 4);
            assert_eq!(slice::from_raw_parts(block, 4), b"pass", "and as it shrinks");
            memory.dealloc(block, layout(4));
        }
        memory.inner.0.into_inner().unwrap()
    }

    #[test]
    fn what_is_freed_is_empty_once_that_is_asked_for() {
        assert_eq!(freed(true), [vec![0; 8], vec![0; 16], vec![0; 4]]);
        let control = freed(false);
        assert_eq!(control, [b"password".to_vec(), b"passwordxxxxxxxx".to_vec(), b"pass".to_vec()]);
        let memory = Wiping::new();
        assert!(!memory.wipes());
        memory.start();
        assert!(memory.wipes());
    }
}
