//! Reading the mounts back: every one must be known, and at least as restricted as it was made.

use std::collections::BTreeMap;

use stockade_sys::mount::{Attributes, Reach};

use super::root::Expected;

/// One line of `/proc/self/mountinfo`, as far as it matters.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    id: u64,
    parent: u64,
    path: String,
    attributes: Attributes,
    /// Whether it has a peer outside (`shared:`, `master:`).
    linked: bool,
}

/// Compares what the kernel says (`mountinfo`) with what was made. Empty when everything is as it should be.
pub(super) fn differences(mountinfo: &str, made: &BTreeMap<u64, Expected>) -> Vec<String> {
    let lines: Option<BTreeMap<u64, Line>> = mountinfo.lines().map(|l| parse(l).map(|l| (l.id, l))).collect();
    let Some(lines) = lines else { return vec!["mountinfo has a line that is not understood".into()] };
    let mut found: Vec<String> = made
        .iter()
        .filter(|(id, _)| !lines.contains_key(id))
        .map(|(_, e)| format!("{} is gone", e.path.display()))
        .collect();
    for line in lines.values() {
        let Some(expected) = origin(line, &lines, made) else {
            found.push(format!("{} was not made by Stockade", line.path));
            continue;
        };
        if !covers(line.attributes, expected.attributes) {
            found.push(format!("{} is less restricted than asked for", line.path));
        }
        if line.linked {
            found.push(format!("{} still receives mounts from outside", line.path));
        }
    }
    found
}

/// The record of `line`, or of the tree that it came along with.
fn origin<'m>(line: &Line, lines: &BTreeMap<u64, Line>, made: &'m BTreeMap<u64, Expected>) -> Option<&'m Expected> {
    if let Some(own) = made.get(&line.id) {
        return Some(own);
    }
    let mut at = line;
    // Each step goes to a parent; a loop in the numbers would be a lie, so the count is bounded.
    for _ in 0..lines.len() {
        at = lines.get(&at.parent)?;
        if let Some(expected) = made.get(&at.id) {
            return (expected.reach == Reach::Tree).then_some(expected);
        }
    }
    None
}

fn covers(is: Attributes, asked: Attributes) -> bool {
    (is.read_only || !asked.read_only)
        && (is.nosuid || !asked.nosuid)
        && (is.nodev || !asked.nodev)
        && (is.noexec || !asked.noexec)
}

/// `id parent major:minor root path options [optional…] - type source super-options`
fn parse(line: &str) -> Option<Line> {
    let mut fields = line.split(' ');
    let id = fields.next()?.parse().ok()?;
    let parent = fields.next()?.parse().ok()?;
    let (_device, _root, path, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let has = |word| options.split(',').any(|o| o == word);
    let attributes =
        Attributes { read_only: has("ro"), nosuid: has("nosuid"), nodev: has("nodev"), noexec: has("noexec") };
    let mut linked = false;
    for optional in fields {
        match optional.split_once(':') {
            _ if optional == "-" => return Some(Line { id, parent, path: path.to_owned(), attributes, linked }),
            Some(("shared" | "master", _)) => linked = true,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{
        super::tree::{PLAIN, READ_ONLY},
        *,
    };

    fn made(rows: &[(u64, &str, Attributes, Reach)]) -> BTreeMap<u64, Expected> {
        let row = |&(id, path, attributes, reach): &(u64, &str, Attributes, Reach)| {
            (id, Expected { path: path.into(), attributes, reach })
        };
        rows.iter().map(row).collect()
    }

    const ROOT: &str = "30 29 0:40 / / ro,nosuid,nodev,relatime - tmpfs tmpfs rw,size=16m\n";
    const USR: &str = "31 30 254:0 /usr /usr ro,nosuid,nodev,relatime - ext4 /dev/vda rw\n";
    const BELOW: &str = "32 31 254:1 / /usr/local ro,nosuid,nodev,relatime - ext4 /dev/vdb rw\n";

    fn view() -> BTreeMap<u64, Expected> {
        made(&[(30, "/", READ_ONLY, Reach::One), (31, "/usr", READ_ONLY, Reach::Tree)])
    }

    #[test]
    fn what_was_made_and_what_came_along_with_it_is_accepted() {
        assert_eq!(differences(&format!("{ROOT}{USR}{BELOW}"), &view()), Vec::<String>::new());
    }

    #[test]
    fn a_foreign_a_missing_a_laxer_and_a_linked_mount_are_noticed() {
        let foreign = "40 30 0:5 / /old rw - ext4 /dev/vda rw\n";
        let cases = [
            (format!("{ROOT}{USR}{foreign}"), "/old was not made by Stockade"),
            (ROOT.to_owned(), "/usr is gone"),
            (format!("{ROOT}{}", USR.replace(" ro,", " rw,")), "/usr is less restricted than asked for"),
            (format!("{ROOT}{USR}{}", BELOW.replace("nodev,", "")), "/usr/local is less restricted than asked for"),
            (format!("{ROOT}{}", USR.replace(" - ", " master:7 - ")), "/usr still receives mounts from outside"),
            (format!("{ROOT}{USR}garbage\n"), "mountinfo has a line that is not understood"),
        ];
        for (mountinfo, want) in cases {
            assert_eq!(differences(&mountinfo, &view()), [want]);
        }
    }

    #[test]
    fn a_mount_on_a_single_mount_is_not_excused_by_its_parent() {
        let on_root = "33 30 0:9 / /extra ro,nosuid,nodev - tmpfs tmpfs rw\n";
        assert_eq!(differences(&format!("{ROOT}{USR}{on_root}"), &view()), ["/extra was not made by Stockade"]);
        let parsed = parse(on_root.trim_end()).unwrap();
        assert_eq!((parsed.attributes, parsed.linked), (Attributes { read_only: true, ..PLAIN }, false));
    }
}
