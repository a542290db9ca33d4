//! GPU device nodes: found by name, taken only where a character device really lies there.

use std::{os::fd::OwnedFd, path::Path};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2};

use super::{
    error::{Context, ViewError},
    host::{Host, kind_of},
};

/// Most entries looked at in one directory.
const MAX_ENTRIES: usize = 4096;

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    /// Its path below /dev.
    pub(super) name: String,
    pub(super) fd: OwnedFd,
}

/// A directory that GPU nodes lie in, and which names in it are theirs.
struct Place {
    directory: &'static str,
    known: fn(&str) -> bool,
}

const PLACES: [Place; 3] = [
    Place { directory: "", known: top_level },
    Place { directory: "nvidia-caps", known: |name| numbered(name, "nvidia-cap") },
    Place { directory: "dri", known: |name| numbered(name, "card") || numbered(name, "renderD") },
];

fn top_level(name: &str) -> bool {
    matches!(name, "nvidiactl" | "nvidia-uvm" | "nvidia-uvm-tools" | "nvidia-modeset" | "kfd")
        || numbered(name, "nvidia")
}

/// `prefix` and a decimal number.
fn numbered(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// The GPU nodes below `root` (`/dev`), sorted by name. No GPU is no error.
pub(super) fn nodes(host: &Host, root: &Path) -> Result<Vec<Node>, ViewError> {
    let mut found = Vec::new();
    for place in PLACES {
        let path = if place.directory.is_empty() { root.to_owned() } else { root.join(place.directory) };
        let directory = match host.open(&path) {
            Ok(fd) if kind_of(&fd).at("stat", &path)? == FileType::Directory => fd,
            Ok(_) | Err(ViewError::Missing(_)) => continue,
            Err(e) => return Err(e),
        };
        let listing = openat(&directory, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at("open", &path)?;
        for entry in Dir::read_from(&listing).at("list", &path)?.take(MAX_ENTRIES) {
            let entry = entry.at("list", &path)?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if !(place.known)(name) {
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd =
                openat2(&directory, name, flags, Mode::empty(), ResolveFlags::BENEATH).at("open", path.join(name))?;
            if kind_of(&fd).at("stat", path.join(name))? == FileType::CharacterDevice {
                let name = Path::new(place.directory).join(name).to_string_lossy().into_owned();
                found.push(Node { name, fd });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_enumerated_not_globbed() {
        for yes in ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset", "nvidia0", "nvidia15", "kfd"] {
            assert!(top_level(yes), "{yes}");
        }
        for no in ["nvidia", "nvidia-", "nvidia0p1", "nvidia-nvlink", "nvme0", "kvm", "nvidia 1", "nvidia-caps"] {
            assert!(!top_level(no), "{no}");
        }
        assert!(numbered("renderD128", "renderD") && !numbered("renderDx", "renderD"));
    }
}
