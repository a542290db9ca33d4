//! The files of the project, as git knows them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// A checkout: its folder and the names of the files that belong to it.
#[derive(Debug)]
pub(crate) struct Sources {
    root: PathBuf,
    files: Vec<String>,
}

impl Sources {
    /// What git tracks below `root`, and what it would track if it were added.
    pub(crate) fn of(root: &Path) -> io::Result<Self> {
        let out = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()?;
        if !out.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&out.stderr).into_owned()));
        }
        let names = String::from_utf8_lossy(&out.stdout);
        // A file that was deleted but not yet committed is listed too.
        let mut files: Vec<String> =
            names.split('\0').filter(|n| !n.is_empty() && root.join(n).is_file()).map(str::to_owned).collect();
        files.sort();
        Ok(Self { root: root.to_owned(), files })
    }

    /// All files, relative to the root.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }

    /// Files with this ending.
    pub(crate) fn ending<'a>(&'a self, end: &'a str) -> impl Iterator<Item = &'a str> {
        self.files().filter(move |f| f.ends_with(end))
    }

    /// Whether the file exists.
    pub(crate) fn has(&self, file: &str) -> bool {
        self.files().any(|f| f == file)
    }

    /// A file's text; bytes that are not UTF-8 become replacement characters.
    pub(crate) fn text(&self, file: &str) -> io::Result<String> {
        fs::read(self.root.join(file)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The checkout's folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}

#[cfg(test)]
impl Sources {
    /// A checkout made of these files, in a folder that lives as long as the second value.
    pub(crate) fn made_of(files: &[(&str, &str)]) -> (Self, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let names = files.iter().map(|(n, _)| (*n).to_owned()).collect();
        (Self { root: dir.path().to_owned(), files: names }, dir)
    }
}

/// The folder of a package (`crates/policy`) and whether the file is part of what ships: not a test, a test
/// fixture, a benchmark or this tool.
pub(crate) fn is_production(file: &str) -> bool {
    let mut parts = file.split('/');
    let inside = parts.next() == Some("crates") && parts.next() != Some("testkit") && parts.next() == Some("src");
    inside && !file.ends_with("/tests.rs") && !file.contains("/tests/")
}
