//! What a program need not keep in memory once it has started.

use std::{io, slice};

const PAGE: usize = 4096;

/// Unmaps the pages of the program's code and constants: most of what was used to start is never used again. The kernel
/// may forget them at once when memory is short, and maps those that are used after all again. Says how many bytes of
/// address space they are.
///
/// # Errors
/// What `madvise(2)` says.
pub fn unmap_program() -> io::Result<usize> {
    let mut segments: Vec<(usize, usize)> = Vec::new();
    // SAFETY: the callback is called before this returns, with the vector that it expects.
    unsafe { libc::dl_iterate_phdr(Some(program), (&raw mut segments).cast()) };
    let mut bytes = 0;
    for (from, to) in segments {
        let from = from.next_multiple_of(PAGE);
        let length = (to / PAGE * PAGE).saturating_sub(from);
        // SAFETY: whole pages of a segment that nobody writes, relocations included: they are in the file as they are in
        // memory.
        if length > 0 && unsafe { libc::madvise(from as *mut libc::c_void, length, libc::MADV_DONTNEED) } != 0 {
            return Err(io::Error::last_os_error());
        }
        bytes += length;
    }
    Ok(bytes)
}

/// Gives memory that the allocator keeps for later back to the kernel.
pub fn trim() {
    // SAFETY: a number.
    unsafe { libc::malloc_trim(0) };
}

/// Notes the segments of the first object, which is the program, that are not writable.
///
/// # Safety
/// `info` is what `dl_iterate_phdr` passes, and `data` a vector of pairs of addresses.
unsafe extern "C" fn program(info: *mut libc::dl_phdr_info, _: usize, data: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the caller's promise.
    let (info, segments) = unsafe { (&*info, &mut *data.cast::<Vec<(usize, usize)>>()) };
    // SAFETY: the loader keeps the table of a loaded object.
    let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    for header in headers.iter().filter(|h| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_W == 0) {
        let from = (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
        segments.push((from, from.wrapping_add(header.p_memsz as usize)));
    }
    1
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Resident KiB of this program's file, mapped read-only or executable.
    fn resident() -> u64 {
        let exe = fs::read_link("/proc/self/exe").unwrap();
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut counts, mut sum) = (false, 0);
        for line in smaps.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["Rss:", number, "kB"] if counts => sum += number.parse::<u64>().unwrap(),
                [_, "r-xp" | "r--p", _, _, _, path] => counts = exe.as_os_str() == *path,
                [range, ..] if range.contains('-') => counts = false,
                _ => {}
            }
        }
        sum
    }

    #[test]
    fn the_program_runs_on_with_fewer_pages() {
        // Touches everything.
        let text: u64 = fs::read("/proc/self/exe").unwrap().iter().map(|b| u64::from(*b)).sum();
        let before = resident();
        let bytes = unmap_program().unwrap();
        let after = resident();
        assert!(bytes > 100 << 10, "{bytes}");
        assert!(after < before, "{before} KiB, then {after}");
        let again: u64 = fs::read("/proc/self/exe").unwrap().iter().map(|b| u64::from(*b)).sum();
        assert_eq!(text, again);
    }
}
