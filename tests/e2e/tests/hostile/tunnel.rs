//! PRX and POL: what is said inside a tunnel, and on a connection that outlives its policy.

use std::fs;

use stockade_testkit::{Arena, Mode, Outer, Stockade, upstream::Tcp};

const POLICY: &str = "
version: 1
network:
  endpoints:
    site: {hosts: [up.test], ports: [80, 443], private_addresses: [192.0.2.0/24]}
";

fn tunnel(port: u16, inside: &str) -> String {
    format!("proxy:CONNECT up.test:{port} HTTP/1.1\\r\\nHost: up.test:{port}\\r\\n\\r\\n{inside}")
}

/// PRX-06, PRX-14: what follows the head belongs to the tunnel, and what is neither HTTP nor TLS does not get through.
#[test]
fn a_tunnel_carries_what_its_endpoint_speaks() {
    const RAW: &str = "
version: 1
network:
  endpoints:
    site: {hosts: [up.test], ports: [80], private_addresses: [192.0.2.0/24]}
    raw: {hosts: [up.test], ports: [443], protocol: tcp, private_addresses: [192.0.2.0/24]}
";
    Outer::run(|_| {
        let sink = Tcp::sink("192.0.2.10:443");
        let arena = Arena::new(POLICY, "up.test");
        arena.dns.host("evil.test", "192.0.2.66");
        let second = tunnel(80, "CONNECT evil.test:443 HTTP/1.1\\r\\nHost: evil.test:443\\r\\n\\r\\n");
        let other = tunnel(80, "GET / HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n");
        let banner = tunnel(443, "SSH-2.0-OpenSSH_9.6\\r\\n");
        let noise = tunnel(443, "\\0\\0\\0secret");
        let tries = [&second, &other, &banner, &noise];
        arena.run(&tries, |mode, run| {
            for attempt in tries {
                assert!(run.outcome(attempt).what.starts_with("ok HTTP/1.1 200"), "{mode:?} {attempt} {run:?}");
            }
            for (attempt, status) in [(&second, "HTTP/1.1 403"), (&other, "HTTP/1.1 421")] {
                assert!(run.outcome(attempt).what.contains(status), "{mode:?} {attempt} {run:?}");
            }
            run.events.one("l7");
            run.events.one("authority_mismatch");
            run.events.none("no_policy");
            let unknown: u64 =
                run.events.with("unknown_protocol").iter().map(|e| e.0["count"].as_u64().unwrap_or(1)).sum();
            assert_eq!(unknown, 2, "{mode:?} {run:?}");
        });
        assert_eq!(sink.counters.bytes(), 0, "nothing of it was sent on");
        assert_eq!(arena.dns.count("evil.test"), 0);
        for mode in Mode::available() {
            // The bytes are the tunnel's: a request in the same segment arrives.
            let inside = tunnel(80, "GET /inside HTTP/1.1\\r\\nHost: up.test\\r\\n\\r\\n");
            let run = arena.stockade(*mode).probe(&[&inside]);
            assert!(run.outcome(&inside).what.contains("hello from upstream"), "control: {mode:?} {run:?}");
            let before = sink.counters.bytes();
            let run = Stockade::new(*mode).policy(RAW).probe(&[&banner]);
            assert!(
                sink.counters.bytes() > before,
                "tripwire: where the policy says so, it gets through: {mode:?} {run:?}"
            );
        }
    });
}

/// POL-04: the next request on a connection that is kept alive is judged by the policy of then.
#[test]
fn a_connection_does_not_outlive_what_allowed_it() {
    // One connection; a request for each line of input.
    let client = r#"use IO::Socket::INET; $| = 1; my ($at) = $ENV{http_proxy} =~ m{//([^/]+)};
        my $s = IO::Socket::INET->new($at) or die; my $n = 0;
        while (<STDIN>) {
            $n++; print $s "GET http://up.test/$n HTTP/1.1\r\nHost: up.test\r\n\r\n" or print "closed $n\n" and next;
            my $head = ''; while (my $line = <$s>) { $head .= $line; last if $line eq "\r\n" }
            my ($status) = $head =~ m{^HTTP/1.1 (\d+)}; my ($length) = $head =~ /content-length: (\d+)/i;
            read $s, my $body, $length if $length;
            print "answer $n ", $status // 'closed', "\n";
        }"#;
    let denying = POLICY.replace("up.test", "else.test");
    Outer::run(|_| {
        let arena = Arena::new(POLICY, "up.test");
        for (mode, next) in Mode::available().iter().flat_map(|m| [(m, &*denying), (m, POLICY)]) {
            let stockade = arena.stockade(*mode);
            let (path, before) = (stockade.policy_path(), arena.site.requests().len());
            let mut run = stockade.spawn(&["perl", "-MIO::Socket::INET", "-e", client]);
            run.write(b"\n");
            run.wait_for("answer 1 200");
            fs::write(&path, format!("{next}# changed\n")).unwrap();
            run.signal(nix::sys::signal::Signal::SIGHUP);
            let began = std::time::Instant::now();
            while run.events().iter().filter(|e| e.class() == 5019).count() < 2 {
                assert!(began.elapsed().as_secs() < 10, "{mode:?} {:?}", run.events());
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            run.write(b"\n");
            let run = run.finish();
            let arrived = arena.site.requests().len() - before;
            if next == POLICY {
                assert!(
                    run.text().contains("answer 2 200"),
                    "tripwire: what is still allowed lives on: {mode:?} {run:?}"
                );
                assert_eq!(arrived, 2, "{mode:?}");
            } else {
                assert!(!run.text().contains("answer 2 200"), "{mode:?} {run:?}");
                assert_eq!(arrived, 1, "{mode:?} {run:?}");
            }
        }
    });
}
