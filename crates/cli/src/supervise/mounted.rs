//! Whether a file is one that the operator mounted, and not one that the image brought along.
//!
//! An image has files in its root file system, and in the volumes that it declares, which the engine makes writable and
//! fills from it. A file of root's on a read-only mount of its own is neither: somebody outside put it there
//! (`-v FILE:FILE:ro`, a ConfigMap, a Secret).

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, StatxFlags, statvfs, statx};

/// What the kernel makes up as it goes; some of it says what the image wants it to say.
const MADE_UP: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Checks a file that the environment names.
///
/// # Errors
/// What it is instead, and the way out.
pub(super) fn check(path: &Path) -> Result<(), String> {
    if !path.is_absolute() || path.to_string_lossy().contains('\n') {
        return Err("expected the absolute path of a file; the text of a policy goes into a file".to_owned());
    }
    look(path).map_err(|e| format!("{}: {e}", path.display()))?.map_err(|what| {
        format!(
            "{} {what}, so the image may have brought it along; mount the file read-only (-v FILE:{}:ro, a ConfigMap \
             or a Secret), owned by root, or name it on the command line",
            path.display(),
            path.display()
        )
    })
}

/// The outer result is the file system's, the inner one the answer.
fn look(path: &Path) -> io::Result<Result<(), &'static str>> {
    let path = fs::canonicalize(path)?;
    let meta = fs::metadata(&path)?;
    let mount = |path: &Path| statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).map(|s| s.stx_mnt_id);
    let read_only = statvfs(&path)?.f_flag.contains(StatVfsMountFlags::RDONLY);
    Ok(if !meta.is_file() || MADE_UP.iter().any(|dir| path.starts_with(dir)) {
        Err("is no regular file")
    } else if meta.uid() != 0 || meta.permissions().mode() & 0o022 != 0 {
        Err("can be written by others than root")
    } else if mount(&path)? == mount(Path::new("/"))? {
        Err("lies in the container's own file system")
    } else if !read_only {
        Err("is on a mount that can be written")
    } else {
        Ok(())
    })
}
