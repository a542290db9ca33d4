//! The machine around the sandbox: a container that shares with its host what containers are there to keep apart.
//!
//! Outside a container nothing here is weak: the host's namespaces are simply the machine's own.

use std::{
    fs, io,
    io::Read,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

/// Marks that Docker, Podman and Kubernetes leave in every container.
const MARKS: [&str; 3] = ["/.dockerenv", "/run/.containerenv", "/run/secrets/kubernetes.io"];
/// The kernel gives the first pid namespace this number (`PROC_PID_INIT_INO`).
const HOST_PIDS: &str = "pid:[4026531836]";
/// Sockets that make containers: who reaches one is root on the host.
const SOCKETS: [&str; 5] = [
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
];
/// Bytes of the mount table that are looked at.
const MOUNT_TABLE: u64 = 1 << 20;

/// Whether this process runs in a container.
pub(crate) fn in_container() -> bool {
    let first = stockade_sys::process::is_pid_one() && !host_pids();
    first || MARKS.iter().any(|mark| Path::new(mark).exists())
}

/// Whether this root may map users other than itself into a user namespace: what Docker gives to every container's root.
pub(crate) fn may_map_users() -> bool {
    use rustix::thread::CapabilitySet as Set;
    let rights = Set::SETUID | Set::SETGID | Set::SETFCAP;
    rustix::thread::capabilities(None).is_ok_and(|c| c.effective.contains(rights))
}

/// Whether this process is in the first user namespace, which has every user.
pub(crate) fn is_machine_s_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map").map_or(true, |map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// Whether an id exists in the user namespace that `map`, a file of /proc, describes.
pub(crate) fn is_mapped(map: &str, id: u32) -> bool {
    let covers = |line: &str| {
        let mut numbers = line.split_whitespace().map(|word| word.parse::<u64>().unwrap_or(0));
        let (first, _, count) = (numbers.next().unwrap_or(0), numbers.next(), numbers.next().unwrap_or(0));
        (first..first.saturating_add(count)).contains(&u64::from(id))
    };
    // Unread, nothing is known; the kernel refuses what does not exist.
    fs::read_to_string(map).map_or(true, |text| text.lines().any(covers))
}

/// Whether something is mounted over parts of /proc: the kernel then refuses a fresh one to a user namespace.
pub(crate) fn proc_is_covered() -> bool {
    mount_table().lines().filter_map(|line| line.split(' ').nth(4)).any(|point| point.starts_with("/proc/"))
}

fn mount_table() -> String {
    let mut table = Vec::new();
    let read = fs::File::open("/proc/self/mountinfo").and_then(|f| f.take(MOUNT_TABLE).read_to_end(&mut table));
    // A table that cannot be read shows nothing; /proc is checked again, and required, when the view is made.
    let _: io::Result<usize> = read;
    String::from_utf8_lossy(&table).into_owned()
}

/// What is weak around us, one sentence each with the way out. Empty outside containers.
pub(crate) fn weaknesses() -> Vec<String> {
    if !in_container() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut note = |weak: bool, text: &str| {
        if weak {
            found.push(text.to_owned());
        }
    };
    note(
        privileged(),
        "this container is privileged: whoever leaves the sandbox is root on the host; run it without --privileged",
    );
    note(host_pids(), "this container shares the host's processes; run it without --pid host");
    note(
        host_network(),
        "this container shares the host's network, so the proxy reaches what the host reaches; run it without --network host",
    );
    for socket in SOCKETS.iter().filter(|s| fs::metadata(s).is_ok_and(|m| m.file_type().is_socket())) {
        found.push(format!("the container engine's socket {socket} is mounted into this container; leave it out"));
    }
    if let Some(path) = host_root() {
        found.push(format!(
            "the host's whole file system is mounted into this container at {}; leave it out",
            path.display()
        ));
    }
    found
}

/// Capabilities that no engine gives by default, and only `--privileged` gives together.
fn privileged() -> bool {
    use rustix::thread::CapabilitySet;
    let rights = CapabilitySet::SYS_MODULE | CapabilitySet::SYS_RAWIO | CapabilitySet::SYS_ADMIN;
    rustix::thread::capabilities(None).is_ok_and(|c| c.permitted.contains(rights))
}

fn host_pids() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|ns| ns == Path::new(HOST_PIDS))
}

/// A container's links have their other end elsewhere; hardware and bridges are the host's.
fn host_network() -> bool {
    let links = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    links.map(|l| l.path()).any(|link| link.join("device").exists() || link.join("bridge").exists())
}

/// Where a root file system besides our own is mounted.
fn host_root() -> Option<PathBuf> {
    mount_table().lines().find_map(whole_root)
}

/// The mount point of a line of mountinfo that mounts the root of a file system which holds a system.
fn whole_root(line: &str) -> Option<PathBuf> {
    let mut fields = line.split(' ');
    let (root, point) = (fields.nth(3)?, fields.next()?);
    let point = Path::new(point);
    let system = || ["etc/passwd", "usr", "proc", "root"].iter().all(|name| point.join(name).exists());
    (root == "/" && point != Path::new("/") && system()).then(|| point.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_mapped_in_ranges() {
        let map = tempfile::NamedTempFile::new().unwrap();
        fs::write(map.path(), "         0     100000       1000\n      2000       1000          1\n").unwrap();
        let mapped = |id| is_mapped(map.path().to_str().unwrap(), id);
        assert!(mapped(0) && mapped(999) && mapped(2000));
        assert!(!mapped(1000) && !mapped(2001) && !mapped(65_534));
    }

    #[test]
    fn a_mounted_system_is_known_by_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let line = |root: &str, point: &Path| format!("30 29 0:40 {root} {} rw - ext4 /dev/vda rw", point.display());
        assert_eq!(whole_root(&line("/", dir.path())), None, "an empty disk");
        for name in ["usr", "proc", "root", "etc"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("etc/passwd"), "").unwrap();
        assert_eq!(whole_root(&line("/", dir.path())).as_deref(), Some(dir.path()));
        assert_eq!(whole_root(&line("/sub", dir.path())), None, "a directory of it");
        assert_eq!(whole_root(&line("/", Path::new("/"))), None, "our own root");
        assert_eq!(whole_root("garbage"), None);
    }
}
