//! The world around a sandbox under test: a throw-away network in which documentation addresses are real.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sched::CloneFlags,
    unistd::{Gid, Uid},
};

use crate::child::Child;

/// The address in the nameserver line of the outer world's resolv.conf. Start a [`crate::upstream::Dns`] on it.
pub const RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53));

/// What is local in there: 192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24 and 2001:db8::/32.
pub const LOCAL: [&str; 4] = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"];

/// A fresh network and mount namespace (and a user namespace, where the test is not root).
///
/// Nothing outside can be reached from it and nothing it does is seen outside. Any address of [`LOCAL`] can be
/// bound and dialled, any port is unprivileged, `/etc/resolv.conf` and `/etc/hosts` are its own.
#[derive(Debug)]
pub struct Outer {
    dir: PathBuf,
}

impl Outer {
    /// Runs `body` in a new outer world, in a child process that starts with one thread and may start more.
    ///
    /// # Panics
    /// When the world cannot be made, and when `body` panics.
    #[track_caller]
    pub fn run(body: impl FnOnce(&Self)) {
        Self::run_within(Duration::from_secs(100), body);
    }

    /// As [`Self::run`], for a body that may take longer (or must not) than the usual 100 seconds.
    ///
    /// # Panics
    /// As [`Self::run`], and when the time is up.
    #[track_caller]
    pub fn run_within(timeout: Duration, body: impl FnOnce(&Self)) {
        let dir = tempfile::Builder::new().prefix("stockade-outer-").tempdir().expect("a temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let (uid, gid) = (Uid::effective(), Gid::effective());
        let mut namespaces = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
        if !uid.is_root() {
            namespaces |= CloneFlags::CLONE_NEWUSER;
        }
        Child::new().namespaces(namespaces).timeout(timeout).run(|| {
            if !uid.is_root() {
                map_to_root(uid, gid);
            }
            let outer = Self { dir: dir.path().to_owned() };
            outer.bring_up();
            body(&outer);
        });
    }

    /// A directory that everybody may enter, removed at the end.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Replaces what `/etc/hosts` says here. Loopback names are kept.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn hosts(&self, lines: &[(IpAddr, &str)]) {
        let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
        for (addr, name) in lines {
            text.push_str(&format!("{addr} {name}\n"));
        }
        fs::write(self.dir.join("hosts"), text).expect("writing hosts");
    }

    fn bring_up(&self) {
        ip(&["link", "set", "lo", "up"]);
        for range in LOCAL {
            let family = if range.contains(':') { "-6" } else { "-4" };
            ip(&[family, "route", "add", "local", range, "dev", "lo"]);
        }
        // Upstreams bind 80 and 443, also when the test is not root.
        fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0").expect("unprivileged ports from 0");
        // IPv4 lets a server bind whatever routes call local; IPv6 wants to be told.
        fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1").expect("IPv6 binds to routed addresses");

        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .expect("making mounts private");
        fs::write(self.dir.join("resolv.conf"), format!("nameserver {RESOLVER}\noptions timeout:2 attempts:1\n"))
            .expect("writing resolv.conf");
        self.hosts(&[]);
        for name in ["resolv.conf", "hosts"] {
            // Often a link to a file that a network manager keeps: the file itself is covered.
            let real = fs::canonicalize(format!("/etc/{name}")).unwrap_or_else(|e| panic!("/etc/{name}: {e}"));
            mount(Some(&self.dir.join(name)), &real, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .unwrap_or_else(|e| panic!("binding over {}: {e}", real.display()));
        }
    }
}

fn map_to_root(uid: Uid, gid: Gid) {
    fs::write("/proc/self/setgroups", "deny").expect("setgroups");
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).expect("gid_map");
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).expect("uid_map");
}

/// Runs iproute2 in the namespaces of this process.
///
/// # Panics
/// When `ip` is not installed or fails.
pub fn ip(args: &[&str]) {
    let out = Command::new("ip").args(args).output().unwrap_or_else(|e| {
        panic!("running `ip`: {e}. These tests build networks with iproute2: install it (package iproute2)")
    });
    assert!(out.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr));
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream, UdpSocket},
    };

    use super::*;

    #[test]
    fn documentation_addresses_are_local_and_nothing_else_is_reachable() {
        Outer::run(|outer| {
            for addr in ["192.0.2.7:80", "198.51.100.1:443", "203.0.113.10:53", "[2001:db8::7]:80"] {
                let listener = TcpListener::bind(addr).expect(addr);
                let mut client = TcpStream::connect(addr).expect(addr);
                client.write_all(b"x").unwrap();
                let mut byte = [0];
                listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
                assert_eq!(&byte, b"x");
            }
            let out = TcpStream::connect_timeout(&"10.0.0.1:80".parse().unwrap(), Duration::from_secs(2));
            assert_eq!(out.unwrap_err().raw_os_error(), Some(nix::libc::ENETUNREACH));
            let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
            assert!(udp.send_to(b"x", "10.0.0.1:53").is_err());
            assert!(outer.dir().is_dir());
        });
    }

    #[test]
    fn it_has_its_own_resolver_and_hosts() {
        let before = fs::read_to_string("/etc/hosts").unwrap();
        Outer::run(|outer| {
            outer.hosts(&[("192.0.2.7".parse().unwrap(), "up.test")]);
            assert!(fs::read_to_string("/etc/hosts").unwrap().contains("192.0.2.7 up.test"));
            assert!(fs::read_to_string("/etc/resolv.conf").unwrap().starts_with("nameserver 192.0.2.53"));
        });
        assert_eq!(fs::read_to_string("/etc/hosts").unwrap(), before, "the machine's file is untouched");
    }

    #[test]
    fn it_works_without_root_too() {
        Child::new().uid(1000).run(|| {
            Outer::run(|_| {
                TcpListener::bind("192.0.2.7:80").expect("a privileged port on a documentation address");
            });
        });
    }
}
