//! `ssh` through an endpoint that passes bytes on.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::mount::{MsFlags, mount};
use stockade_testkit::{Mode, Outer, Stockade, outer::RESOLVER, runner::ORDINARY_UID, skip, upstream::Dns};

use crate::{need_tools, world::quiet};

const POLICY: &str = "
version: 1
network:
  endpoints:
    server:
      hosts: [ssh.test]
      ports: [22]
      protocol: tcp
      private_addresses: [192.0.2.22/32]
";

#[test]
fn ssh_reaches_the_server_of_a_tcp_endpoint_and_no_other() {
    need_tools!(inside: "ssh");
    need_tools!(outside: "ssh-keygen");
    let Some(sshd) = ["/usr/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|p| Path::new(p).is_file()) else {
        skip!("sshd is not installed");
    };
    if !Mode::available().contains(&Mode::Root) {
        skip!("sshd needs root");
    }
    Outer::run(|outer| {
        let dns = Dns::start((RESOLVER, 53));
        for name in ["ssh.test", "evil.test"] {
            dns.host(name, "192.0.2.22");
        }
        let mut server = serve(outer, sshd);
        for mode in Mode::available() {
            let run = login(outer, *mode, "ssh.test");
            assert_eq!((run.code(), run.text().as_str()), (3, "root of the server\n"), "{mode:?} {run:?}");
            let allowed = run.events.iter().find(|e| e.action() == Some("allowed") && e.port() == Some(22));
            assert_eq!(allowed.and_then(|e| e.host()), Some("ssh.test"), "{mode:?} {run:?}");

            let run = login(outer, *mode, "evil.test");
            assert!(run.code() == 255 && run.stderr.contains("resolve hostname"), "{mode:?} {run:?}");
            assert_eq!(run.events.some("dns_no_policy").host(), Some("evil.test"), "{mode:?} {run:?}");
            let run = login(outer, *mode, "192.0.2.22");
            assert!(run.code() == 255 && run.text().is_empty(), "the address is not the name: {mode:?} {run:?}");
            assert!(run.events.refusals() >= 1 && run.took < Duration::from_secs(15), "{mode:?} {run:?}");
        }
        server.kill().unwrap();
        server.wait().unwrap();
    });
}

fn login(outer: &Outer, mode: Mode, host: &str) -> stockade_testkit::Finished {
    let stockade = Stockade::new(mode).policy(POLICY);
    let key = stockade.work().join("key");
    fs::copy(outer.dir().join("user"), &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&key, Some(ORDINARY_UID), Some(ORDINARY_UID)).unwrap();
    let known = fs::read_to_string(outer.dir().join("host.pub")).unwrap();
    fs::write(stockade.work().join("known"), format!("ssh.test {known}")).unwrap();
    stockade.sh(&format!(
        "ssh -F none -o BatchMode=yes -o UserKnownHostsFile=known -o ConnectTimeout=10 -i key root@{host} \
         'echo root of the server; exit 3'"
    ))
}

/// OpenSSH's server on 192.0.2.22:22, which lets the test's key in.
fn serve(outer: &Outer, sshd: &str) -> Child {
    let dir = outer.dir();
    for name in ["host", "user"] {
        quiet(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(name)));
    }
    // It wants its own /run; the machine's is left alone.
    mount(Some("none"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    fs::create_dir("/run/sshd").unwrap();
    let settings = [
        "ListenAddress 192.0.2.22".to_owned(),
        format!("HostKey {}", dir.join("host").display()),
        format!("AuthorizedKeysFile {}", dir.join("user.pub").display()),
        "StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nPasswordAuthentication no\n".to_owned(),
    ];
    fs::write(dir.join("sshd_config"), settings.join("\n")).unwrap();
    let mut server = Command::new(sshd);
    server.arg("-D").arg("-f").arg(dir.join("sshd_config")).stderr(Stdio::null());
    let child = server.spawn().unwrap_or_else(|e| panic!("{server:?}: {e}"));
    let began = Instant::now();
    while std::net::TcpStream::connect("192.0.2.22:22").is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "sshd does not listen");
        thread::sleep(Duration::from_millis(20));
    }
    child
}
