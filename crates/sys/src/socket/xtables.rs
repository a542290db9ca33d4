//! Reading the rules of ip_tables and ip6_tables as the kernel has them, without running anything.

use std::{
    io,
    net::UdpSocket,
    os::fd::{AsRawFd, OwnedFd},
};

const NAME: usize = 32;
/// `struct ipt_getinfo`: name, valid hooks, entry points, underflows, number of entries, size.
const INFO: usize = NAME + 4 + 20 + 20 + 4 + 4;
/// `struct ipt_get_entries`: name, size, then the entries on an 8-byte boundary.
const ENTRIES: usize = NAME + 8;
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// Largest table that is read.
const MAX: usize = 4 * 1024 * 1024;

/// Which of the two rule sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Xtables {
    /// ip_tables.
    V4,
    /// ip6_tables.
    V6,
}

/// A table's rules as they are in the kernel, and what they counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Hooks and entries in the kernel's own form, with every counter zero.
    pub rules: Vec<u8>,
    /// Packets counted by each entry, in order: chains one after the other, heads and policies among them.
    pub packets: Vec<u64>,
}

/// A socket to read rules by; it belongs to the network namespace it was opened in.
#[derive(Debug)]
pub struct Reader {
    fd: OwnedFd,
    kind: Xtables,
}

impl Reader {
    /// Opens it in the calling thread's network namespace.
    ///
    /// # Errors
    /// What `socket(2)` says.
    pub fn open(kind: Xtables) -> io::Result<Self> {
        // Any socket of the family will do; this one stays bound to an unused port of loopback.
        let socket = match kind {
            Xtables::V4 => UdpSocket::bind("127.0.0.1:0")?,
            Xtables::V6 => UdpSocket::bind("[::1]:0")?,
        };
        Ok(Self { fd: socket.into(), kind })
    }

    /// Reads a table.
    ///
    /// # Errors
    /// `ENOPROTOOPT` where the kernel has no ip_tables; `ENOENT` for a table it lacks; `EPERM` without
    /// `CAP_NET_ADMIN`; `EAGAIN` when the table changed meanwhile.
    pub fn snapshot(&self, table: &str) -> io::Result<Snapshot> {
        let mut info = named(table, INFO)?;
        self.get(GET_INFO, &mut info)?;
        let size = usize::try_from(word(&info, INFO - 4)?).map_err(io::Error::other)?;
        if size > MAX {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        let mut entries = named(table, ENTRIES + size)?;
        entries[NAME..NAME + 4].copy_from_slice(&word(&info, INFO - 4)?.to_ne_bytes());
        self.get(GET_ENTRIES, &mut entries)?;
        let mut rules = info;
        let packets = strip(&mut entries[ENTRIES..], self.kind)?;
        rules.extend_from_slice(&entries[ENTRIES..]);
        Ok(Snapshot { rules, packets })
    }

    fn get(&self, option: libc::c_int, buffer: &mut [u8]) -> io::Result<()> {
        let level = match self.kind {
            Xtables::V4 => libc::SOL_IP,
            Xtables::V6 => libc::SOL_IPV6,
        };
        let mut len = libc::socklen_t::try_from(buffer.len()).map_err(io::Error::other)?;
        // SAFETY: `buffer` is writable for `len` bytes, and the kernel writes no more than that.
        let result =
            unsafe { libc::getsockopt(self.fd.as_raw_fd(), level, option, buffer.as_mut_ptr().cast(), &raw mut len) };
        crate::process::check(result.into())
    }
}

fn named(table: &str, len: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; len];
    match buffer.get_mut(..table.len()) {
        Some(name) if table.len() < NAME => name.copy_from_slice(table.as_bytes()),
        _ => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
    Ok(buffer)
}

/// Zeroes the counters of every entry and returns the packets they had.
fn strip(entries: &mut [u8], kind: Xtables) -> io::Result<Vec<u64>> {
    // Offsets of `next_offset` and `counters` in `struct ipt_entry` and `struct ip6t_entry`.
    let (next_at, counters_at) = match kind {
        Xtables::V4 => (90, 96),
        Xtables::V6 => (142, 152),
    };
    let malformed = || io::Error::from_raw_os_error(libc::EBADMSG);
    let (mut packets, mut rest) = (Vec::new(), entries);
    while !rest.is_empty() {
        let next = rest.get(next_at..next_at + 2).ok_or_else(malformed)?;
        let next = usize::from(u16::from_ne_bytes(next.try_into().map_err(io::Error::other)?));
        if next < counters_at + 16 || next > rest.len() {
            return Err(malformed());
        }
        let (entry, after) = rest.split_at_mut(next);
        let counters = &mut entry[counters_at..counters_at + 16];
        packets.push(u64::from_ne_bytes(counters[..8].try_into().map_err(io::Error::other)?));
        counters.fill(0);
        rest = after;
    }
    Ok(packets)
}

fn word(bytes: &[u8], at: usize) -> io::Result<u32> {
    let bytes = bytes.get(at..at + 4).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADMSG))?;
    Ok(u32::from_ne_bytes(bytes.try_into().map_err(io::Error::other)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_walked_and_hostile_lengths_are_errors() {
        let entry = |next: u16, packets: u64| {
            let mut e = vec![7; 120];
            e[90..92].copy_from_slice(&next.to_ne_bytes());
            e[96..104].copy_from_slice(&packets.to_ne_bytes());
            e
        };
        let mut two = [entry(120, 3), entry(120, 4)].concat();
        assert_eq!(strip(&mut two, Xtables::V4).unwrap(), [3, 4]);
        assert_eq!(strip(&mut two, Xtables::V4).unwrap(), [0, 0]);
        for next in [0, 1, 111, 121, u16::MAX] {
            assert!(strip(&mut entry(next, 1), Xtables::V4).is_err(), "{next}");
        }
        for len in 1..120 {
            assert!(strip(&mut entry(120, 1)[..len], Xtables::V4).is_err(), "{len}");
        }
        assert!(strip(&mut entry(120, 1), Xtables::V6).is_err());
    }

    #[test]
    fn a_table_name_too_long_is_refused() {
        assert!(named("filter", INFO).is_ok());
        assert!(named(&"x".repeat(32), INFO).is_err());
    }
}
