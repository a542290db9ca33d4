//! PRX and POL: what is said inside a tunnel, and on a connection that outlives its policy.

use std::fs;

use stockade_testkit::{
    Arena, Mode, Outer, Stockade,
    upstream::{
        Http, Tcp,
        https::{Authority, Https},
    },
};

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

/// PRX-16: what a port carries is found out and not assumed; rules hold for it, and nothing secret goes up in clear.
#[test]
fn a_port_says_nothing_about_what_it_carries() {
    const POLICY: &str = "
version: 1
network:
  endpoints:
    up: {hosts: [up.test], ports: [80], private_addresses: [192.0.2.0/24]}
    odd: {hosts: [tls.test, plain.test], ports: [80, 443], private_addresses: [192.0.2.0/24], allow: [{paths: [/open]}]}
    api: {hosts: [tls.test, plain.test], ports: [8443], private_addresses: [192.0.2.0/24], credentials: [token]}
credentials:
  token: {env: TOKEN, source: env:SOURCE, inject: {header: authorization, value: 'Bearer {secret}'}}
";
    const SECRET: &str = "s3cr3t-of-this-very-run-0123456789";
    let script = r#"t() { name=$1; shift; code=$(curl -s -m 10 -o body -w '%{http_code}' "$@")
            echo "$name $code $(grep -o '"reason":"[a-z0-9_]*"' body | cut -d'"' -f4)"; : > body; }
        t tls80 https://tls.test:80/open; t tls80no https://tls.test:80/shut
        t plain443 -p http://plain.test:443/open; t plain443no -p http://plain.test:443/shut
        t plain443abs http://plain.test:443/open; t plain443absno http://plain.test:443/shut
        t token -H "authorization: Bearer $TOKEN" https://tls.test:8443/
        t tunnel -p -H "authorization: Bearer $TOKEN" http://plain.test:8443/
        t absolute -H "authorization: Bearer $TOKEN" http://plain.test:8443/"#;
    let want = "tls80 200 \ntls80no 403 l7\nplain443 200 \nplain443no 403 l7\nplain443abs 200 \nplain443absno 403 l7\n\
                token 200 \ntunnel 403 cred_scope\nabsolute 403 cred_scope\n";
    Outer::run(move |outer| {
        let authority = Authority::new();
        let ca = outer.dir().join("ca.pem");
        fs::write(&ca, authority.pem()).unwrap();
        let tls = ["192.0.2.20:80", "192.0.2.20:8443"].map(|addr| Https::hello(addr, &authority, &["tls.test"]));
        let plain = ["192.0.2.21:443", "192.0.2.21:8443"].map(Http::hello);
        let arena = Arena::new(POLICY, "up.test");
        arena.dns.host("tls.test", "192.0.2.20");
        arena.dns.host("plain.test", "192.0.2.21");
        for mode in Mode::available() {
            let run = arena.stockade(*mode).env("SOURCE", SECRET).arg("--upstream-ca").arg(&ca).sh(script);
            assert_eq!(run.text(), want, "{mode:?} {run:?}");
            let of = ["l7", "cred_scope"]
                .map(|r| run.events.with(r).into_iter().filter(|e| e.action() == Some("denied")).count());
            assert_eq!(of, [3, 2], "one event each: {mode:?} {run:?}");
        }
        let modes = Mode::available().len();
        assert_eq!(tls.each_ref().map(|s| s.requests().len()), [modes, modes]);
        assert_eq!(plain.each_ref().map(|s| s.requests().len()), [2 * modes, 0], "nothing in clear to the second");
        let seen = tls[1].requests();
        let bearer = format!("Bearer {SECRET}");
        assert!(seen.iter().all(|r| r.header("authorization") == Some(&bearer)), "control: {seen:?}");
        let free = POLICY.replace(", credentials: [token]", "").replace("credentials:\n  token", "#");
        let run = Stockade::new(Mode::Rootless).policy(&free).sh(script);
        assert!(
            run.text().contains("tunnel 200 \nabsolute 200 \n"),
            "tripwire: without a credential both go up: {run:?}"
        );
    });
}
