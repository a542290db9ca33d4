//! What is known of a file, and the line that `ls -l` shows of it.

use std::{fs::Metadata, os::unix::fs::MetadataExt};

/// Attributes as they travel; what is absent is not said, or not to be changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) size: Option<u64>,
    /// User and group.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: Option<u32>,
    /// Accessed and modified, in seconds.
    pub(super) times: Option<(u32, u32)>,
}

impl Attributes {
    pub(super) fn of(metadata: &Metadata) -> Self {
        // Version 3 has 32 bits for a time.
        let time = |t: i64| u32::try_from(t.max(0)).unwrap_or(u32::MAX);
        Self {
            size: Some(metadata.size()),
            owner: Some((metadata.uid(), metadata.gid())),
            mode: Some(metadata.mode()),
            times: Some((time(metadata.atime()), time(metadata.mtime()))),
        }
    }
}

/// A line as `ls -ln` writes it: ids, because the names of users are nothing that a sandbox needs to have.
pub(super) fn long(name: &[u8], metadata: &Metadata, now: i64) -> Vec<u8> {
    let (uid, gid, size) = (metadata.uid(), metadata.gid(), metadata.size());
    let (mode, time) = (mode(metadata.mode()), time(metadata.mtime(), now));
    let mut line = format!("{mode} {:>4} {uid:<8} {gid:<8} {size:>8} {time} ", metadata.nlink()).into_bytes();
    line.extend(name);
    line
}

fn mode(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o060_000 => 'b',
        0o020_000 => 'c',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// `Jan  2 03:04`, or with the year where it is long ago or in the future. UTC.
fn time(seconds: i64, now: i64) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let month = usize::try_from(month - 1).ok().and_then(|m| MONTHS.get(m)).copied().unwrap_or("???");
    if (0..183 * 86_400).contains(&(now - seconds)) {
        format!("{month} {day:>2} {:02}:{:02}", of_day / 3600, of_day / 60 % 60)
    } else {
        format!("{month} {day:>2} {year:>5}")
    }
}

/// Year, month and day of a day since 1970-01-01 (Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_times_are_as_ls_shows_them() {
        assert_eq!(mode(0o100_644), "-rw-r--r--");
        assert_eq!(mode(0o041_777), "drwxrwxrwt");
        assert_eq!(mode(0o104_755), "-rwsr-xr-x");
        assert_eq!(mode(0o120_777), "lrwxrwxrwx");
        let now = 1_795_329_467;
        assert_eq!(time(now, now), "Nov 22 06:37");
        assert_eq!(time(951_782_400, now), "Feb 29  2000");
        assert_eq!(time(0, now), "Jan  1  1970");
        assert_eq!(time(now + 10, now), "Nov 22  2026");
    }
}
