//! The script that an interpreter was started with. The process can rewrite its arguments: evidence, never proof.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Read,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use super::pins::interpreter;

/// Bytes of the arguments that are looked at.
const MAX_ARGUMENTS: u64 = 4096;

/// The script of a process that runs `exe`, absolute; `None` for programs that are no interpreters, and for code that
/// does not come from a file.
pub(super) fn of(pid: u32, exe: &str) -> Option<String> {
    if !interpreter(Path::new(exe)) {
        return None;
    }
    let mut arguments = Vec::new();
    File::open(format!("/proc/{pid}/cmdline")).ok()?.take(MAX_ARGUMENTS).read_to_end(&mut arguments).ok()?;
    let name = named(&arguments)?;
    let cwd = if name.is_absolute() { PathBuf::new() } else { fs::read_link(format!("/proc/{pid}/cwd")).ok()? };
    Some(plain(&cwd.join(name)).to_string_lossy().into_owned())
}

/// The first argument, after options that bring neither code nor an argument of their own. Any other option ends the
/// search: what follows is not known to be a script.
fn named(arguments: &[u8]) -> Option<&Path> {
    // The last argument is terminated; if it is not, it was cut off.
    let end = arguments.iter().rposition(|b| *b == 0)?;
    for argument in arguments.get(..end)?.split(|b| *b == 0).skip(1) {
        match argument {
            [b'-', letters @ ..] if !letters.is_empty() && letters.iter().all(|b| b"uEsBOvx".contains(b)) => {}
            [b'-', ..] | [] => return None,
            path => return Some(Path::new(OsStr::from_bytes(path))),
        }
    }
    None
}

/// Without `.` and `..`, by words alone.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(out.pop()),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_the_first_argument_that_is_no_option() {
        for (line, script) in [
            ("python3\0-u\0tool.py\0--x\0", Some("tool.py")),
            ("sh\0/a/b.sh\0", Some("/a/b.sh")),
            ("python3\0-c\0print()\0", None),
            ("python3\0-m\0http.server\0", None),
            ("python3\0-Wignore\0x.py\0", None),
            ("node\0--require\0x\0y\0", None),
            ("bash\0-lc\0curl\0", None),
            ("bash\0", None),
            ("sh\0cut-of", None),
            ("perl\0-\0", None),
        ] {
            assert_eq!(named(line.as_bytes()), script.map(Path::new), "{line:?}");
        }
        assert_eq!(plain(Path::new("/w/./a/../../b")), Path::new("/b"));
    }

    #[test]
    fn interpreters_by_name() {
        for (path, is) in [
            ("/usr/bin/python3.11", true),
            ("/usr/bin/bash", true),
            ("/usr/bin/node", true),
            ("/usr/bin/shred", false),
            ("/usr/bin/nodejs-helper", false),
            ("/usr/bin/curl", false),
        ] {
            assert_eq!(interpreter(Path::new(path)), is, "{path}");
        }
    }
}
