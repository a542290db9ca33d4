//! PRX, SSRF, DNS, HTTP, LOG: what goes to the proxy, and what comes back.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use stockade_testkit::{
    Arena, Finished, Mode, Outer, Running, Stockade,
    outer::RESOLVER,
    upstream::{Dns, Http, Response, Tcp},
};

const POLICY: &str = "
version: 1
network:
  endpoints:
    site: {hosts: ['*.corp.test'], ports: [80, 3128, 9000], tls: passthrough, private_addresses: [192.0.2.0/24]}
    raw: {hosts: [raw.test], ports: [9000], protocol: tcp, tls: passthrough, private_addresses: [192.0.2.0/24]}
";

fn connect(authority: &str) -> String {
    format!("proxy:CONNECT {authority} HTTP/1.1\\r\\nHost: {authority}\\r\\n\\r\\n")
}

fn get(authority: &str) -> String {
    format!("proxy:GET http://{authority}/ HTTP/1.1\\r\\nHost: {authority}\\r\\n\\r\\n")
}

#[track_caller]
fn status(run: &Finished, attempt: &str) -> u16 {
    let what = run.outcome(attempt).what;
    what.strip_prefix("ok HTTP/1.1 ")
        .and_then(|w| w.get(..3)?.parse().ok())
        .unwrap_or_else(|| panic!("{attempt}: {what}\n{run:?}"))
}

/// PRX-08: what another process of the sandbox forwards is judged as if it were its own.
#[test]
fn a_relay_inside_gets_the_same_answers() {
    Outer::run(|_| {
        let arena = Arena::new(POLICY, "up.corp.test");
        arena.dns.host("evil.test", "192.0.2.10");
        let relayed = "say:127.0.0.1:9000:";
        let denied = connect("evil.test:80").replacen("proxy:", relayed, 1);
        let allowed = get("up.corp.test").replacen("proxy:", relayed, 1);
        for mode in Mode::available() {
            let stockade = arena.stockade(*mode);
            stockade.put_probe();
            let script = format!(
                "./probe relay:127.0.0.1:9000 & until ./probe tcp:127.0.0.1:9000 | grep -q 'ok from'; do sleep 0.05; done
                ./probe '{denied}' '{allowed}'"
            );
            let before = arena.site.requests().len();
            let run = stockade.sh(&script);
            assert_eq!(status(&run, &denied), 403, "{mode:?} {run:?}");
            assert_eq!(run.events.one("no_policy").host(), Some("evil.test"), "{mode:?}");
            assert_eq!(run.events.refusals(), 1, "one event: {mode:?} {run:?}");
            assert_eq!(status(&run, &allowed), 200, "control: the relay works {mode:?} {run:?}");
            assert_eq!(arena.site.requests().len(), before + 1, "only the control arrived");
        }
        assert_eq!(arena.dns.count("evil.test"), 0, "nor did a resolver hear of it");
        let asked = [connect("evil.corp.test:80")];
        arena.dns.host("evil.corp.test", "192.0.2.10");
        let run = arena.stockade(Mode::Rootless).probe(&asked);
        assert_eq!(status(&run, &asked[0]), 200, "tripwire: with a rule for its host the same request passes");
    });
}

/// PRX-10: nobody inside takes the place of the door, with whatever option.
#[test]
fn the_door_s_ports_cannot_be_shared() {
    Outer::run(|_| {
        let taken = [
            "tcp:127.0.0.1:3128",
            "tcp:0.0.0.0:3128",
            "tcp:127.0.0.1:53",
            "udp:127.0.0.1:53",
            "udp:0.0.0.0:53",
            "tcp:0.0.0.0:15001",
        ];
        let taken = taken.map(|t| format!("reuse:{t}"));
        let free = ["reuse:tcp:127.0.0.1:3129", "reuse:udp:127.0.0.1:54", "reuse:tcp:127.0.0.2:3128"];
        let tries: Vec<&str> = taken.iter().map(String::as_str).chain(free).collect();
        Arena::new(POLICY, "up.corp.test").run(&tries, |mode, run| {
            for attempt in &taken {
                let what = run.outcome(attempt).what;
                assert!(matches!(&*what, "EADDRINUSE" | "EACCES"), "{mode:?} {attempt} {what}");
            }
            for attempt in free {
                assert_eq!(run.outcome(attempt).what, "ok bound", "control: {mode:?} {attempt}");
            }
        });
        let bare = Stockade::new(Mode::Rootless).unwrapped().probe(&taken);
        // The test's own name server has one of them.
        let bound = taken.iter().filter(|t| bare.outcome(t).what == "ok bound").count();
        assert!(bound >= taken.len() - 1, "tripwire: they are free without: {bare:?}");
    });
}

/// PRX-11: where a connection comes from says nothing of who made it.
#[test]
fn a_source_address_is_no_identity() {
    Outer::run(|_| {
        let head = |host: &str| format!("GET http://{host}/ HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n");
        let tried = |source: &str, host: &str| format!("spoof:{source}:{}", head(host));
        let near = ["127.0.0.53", "127.1.2.3"].map(|s| tried(s, "evil.test"));
        // The way back to an address that is not loopback is closed by the fence: there is no connection at all.
        let far = ["192.0.2.10", "203.0.113.9", "8.8.8.8"].map(|s| tried(s, "up.corp.test"));
        let tries: Vec<&String> = near.iter().chain(&far).collect();
        let arena = Arena::new(POLICY, "up.corp.test");
        arena.run(&tries, |mode, run| {
            for attempt in &near {
                assert_eq!(status(run, attempt), 403, "{mode:?} {run:?}");
            }
            for attempt in &far {
                assert!(!run.outcome(attempt).what.starts_with("ok"), "{mode:?} {attempt} {run:?}");
            }
            let told = run.events.with("no_policy");
            assert_eq!(told.iter().map(|e| e.0["count"].as_u64().unwrap_or(1)).sum::<u64>(), 2, "{mode:?} {run:?}");
            assert!(told.iter().all(|e| !e.0.to_string().contains("127.1.2.3")), "not in the record: {told:?}");
        });
        let allowed = tried("127.0.0.53", "up.corp.test");
        let run = arena.stockade(Mode::Rootless).probe(&[&allowed]);
        assert_eq!(status(&run, &allowed), 200, "control, and tripwire: the host decides, not the source: {run:?}");
    });
}

/// PRX-20: either side may end first, and the other goes on; nothing stays behind.
#[test]
fn half_closed_tunnels_carry_on_and_are_given_back() {
    const TIMES: usize = 300;
    const SIZE: usize = 64 * 1024;
    Outer::run(|_| {
        let dns = Dns::start((RESOLVER, 53));
        dns.host("raw.test", "192.0.2.10");
        // Reads to the end of the request, which only the client's FIN marks, and answers then.
        let upstream = Tcp::serve("192.0.2.10:9000", |mut stream| {
            let mut request = Vec::new();
            stream.read_to_end(&mut request)?;
            stream.write_all(&vec![b'x'; SIZE])?;
            stream.socket().shutdown(Shutdown::Write)
        });
        let text = "CONNECT raw.test:9000 HTTP/1.1\\r\\nHost: raw.test:9000\\r\\n\\r\\nhello";
        for mode in Mode::available() {
            let stockade = Stockade::new(*mode).policy(POLICY);
            let probe = stockade.put_probe();
            let half = format!("half:{TIMES}:{text}");
            let script = format!("echo ready; read x; {0} '{half}'; echo done; read x", probe.display());
            let mut run = stockade.timeout(Duration::from_secs(60)).spawn(&["sh", "-c", &script]);
            run.wait_for("ready");
            let before = descriptors(&run);
            run.write(b"\n");
            run.wait_for("done");
            let began = Instant::now();
            while descriptors(&run) > before + 8 {
                assert!(began.elapsed() < Duration::from_secs(10), "{mode:?}: {before} and {}", descriptors(&run));
                std::thread::sleep(Duration::from_millis(20));
            }
            run.write(b"\n");
            let done = run.finish();
            let what = done.outcome(&half).what;
            let bytes: usize = what.trim_start_matches("ok ").trim_end_matches(" bytes").parse().unwrap();
            assert!(bytes >= TIMES * SIZE, "the whole answer each time, behind our own end: {mode:?} {what}");
            let closed = done.events.iter().filter(|e| e.action() == Some("closed")).count();
            assert_eq!(closed, TIMES, "{mode:?}: one closing event each");
        }
        assert_eq!(upstream.counters.arrivals() as usize, TIMES * Mode::available().len());
    });
}

/// Open descriptors of the supervisor; as many as can be seen.
fn descriptors(run: &Running) -> usize {
    fs::read_dir(format!("/proc/{}/fd", run.pid())).map_or(0, Iterator::count)
}

/// SSRF-07: the proxy is not its own destination under any name.
#[test]
fn the_proxy_does_not_dial_itself() {
    Outer::run(|outer| {
        let arena = Arena::new(POLICY, "up.corp.test");
        arena.dns.host("self.corp.test", "127.0.0.1");
        arena.dns.host("host.corp.test", "192.0.2.1");
        let blocked = ["127.0.0.1:3128", "localhost:3128", "self.corp.test:3128", "[::1]:3128"];
        // The host's own address, which the policy lists: nothing of the supervisor listens there.
        let own = ["host.corp.test:3128"];
        let tries: Vec<String> = blocked.iter().chain(&own).flat_map(|a| [connect(a), get(a)]).collect();
        arena.run(&tries, |mode, run| {
            for (at, attempt) in tries.iter().enumerate() {
                // `localhost` has a single label, which is no host of the world at all.
                let refused = if attempt.contains("localhost") { 400 } else { 403 };
                let want = if at < blocked.len() * 2 { refused } else { 502 };
                assert_eq!(status(run, attempt), want, "{mode:?} {attempt} {run:?}");
            }
            assert_eq!(run.events.refusals(), tries.len() as u64, "{mode:?} {run:?}");
        });
        // A listener of somebody else there is reached: what is refused above is the proxy, not the address.
        let other = Http::hello("192.0.2.1:3128");
        let run = arena.stockade(Mode::Rootless).probe(&[get(own[0])]);
        assert_eq!(status(&run, &get(own[0])), 200, "control: {run:?}");
        assert_eq!(other.requests().len(), 1);
        assert!(outer.dir().exists());
    });
}

/// DNS-07: names are absolute, inside and outside.
#[test]
fn names_are_never_completed() {
    Outer::run(|outer| {
        fs::write(
            outer.dir().join("resolv.conf"),
            format!("nameserver {RESOLVER}\nsearch corp.test evil.test\noptions ndots:5 timeout:2 attempts:1\n"),
        )
        .unwrap();
        let arena = Arena::new(POLICY, "up.corp.test");
        for expanded in
            ["metadata.corp.test", "up.corp.test.corp.test", "intranet.corp.test", "localhost.localdomain.corp.test"]
        {
            arena.dns.host(expanded, "192.0.2.66");
        }
        let wrong = Http::hello("192.0.2.66:80");
        let refused = ["metadata:80", "up:80", "localhost.localdomain:80"].map(connect);
        let inside = ["resolve:up", "resolve:metadata"];
        let tries: Vec<&str> = refused.iter().map(String::as_str).chain(inside).collect();
        arena.run(&tries, |mode, run| {
            for attempt in &refused {
                assert!(matches!(status(run, attempt), 400 | 403), "{mode:?} {run:?}");
            }
            for attempt in inside {
                assert!(!run.outcome(attempt).what.starts_with("ok"), "{mode:?} {run:?}");
            }
            let denied = run.events.with("bad_authority").len() + run.events.with("ssrf_always_blocked").len();
            assert_eq!(denied, refused.len(), "{mode:?} {run:?}");
        });
        // A name that does not exist is not completed either.
        let missing = get("gone.corp.test");
        let run = arena.stockade(Mode::Rootless).probe(&[&missing]);
        assert_eq!(status(&run, &missing), 502, "{run:?}");
        wrong.counters().assert_untouched();
        let asked: Vec<String> = arena.dns.queries().into_iter().map(|(name, _)| name).collect();
        assert!(asked.iter().all(|n| ["up.corp.test", "gone.corp.test"].contains(&n.as_str())), "{asked:?}");
        let bare = Stockade::new(Mode::Rootless).unwrapped().probe(&["resolve:up"]);
        assert!(
            bare.outcome("resolve:up").what.contains("192.0.2.10"),
            "tripwire: the C library completes it: {bare:?}"
        );
    });
}

/// HTTP-13: what `Connection` names is for one hop, and can take nothing away that the door adds.
#[test]
fn connection_headers_strip_themselves_and_nothing_of_the_door() {
    Outer::run(|_| {
        let arena = Arena::new(POLICY, "up.corp.test");
        let request = |fields: &str| {
            format!("proxy:GET http://up.corp.test/tried HTTP/1.1\\r\\nHost: up.corp.test\\r\\n{fields}\\r\\n")
        };
        let tries = [
            request("Connection: Authorization\\r\\nAuthorization: mine\\r\\nX-Kept: yes\\r\\n"),
            request("Connection: close, X-Injected\\r\\nX-Injected: evil\\r\\nX-Kept: yes\\r\\n"),
            request("Connection: Host, Content-Length, Via\\r\\nX-Kept: yes\\r\\n"),
            request(
                "Proxy-Authorization: secret\\r\\nProxy-Connection: keep-alive\\r\\nTE: trailers\\r\\nKeep-Alive: 9\\r\\nX-Kept: yes\\r\\n",
            ),
        ];
        for mode in Mode::available() {
            let before = arena.site.requests().len();
            let run = arena.stockade(*mode).probe(&tries);
            let answers: Vec<u16> = tries.iter().map(|t| status(&run, t)).collect();
            let seen = arena.site.requests()[before..].to_vec();
            // Naming what a request needs is no request at all.
            assert_eq!(answers.iter().filter(|s| **s == 200).count(), seen.len(), "{mode:?} {answers:?} {run:?}");
            assert!(seen.len() >= 3, "control: {mode:?} {answers:?} {run:?}");
            for request in &seen {
                assert_eq!(request.header("host"), Some("up.corp.test"), "{mode:?} {request:?}");
                assert_eq!(request.header("x-kept"), Some("yes"), "{mode:?} {request:?}");
                for gone in ["x-injected", "proxy-authorization", "proxy-connection", "keep-alive", "te"] {
                    assert_eq!(request.header(gone), None, "{mode:?} {request:?}");
                }
            }
            assert!(
                seen.iter().all(|r| r.header("authorization").is_none()),
                "nominated, so removed: {mode:?} {seen:?}"
            );
        }
        let direct =
            Stockade::new(Mode::Rootless).unwrapped().probe(&[tries[1].replacen("proxy:", "say:192.0.2.10:80:", 1)]);
        let last = arena.site.requests().pop().unwrap();
        assert_eq!(last.header("x-injected"), Some("evil"), "tripwire: without the door it arrives: {direct:?}");
    });
}

/// HTTP-15: a hostile origin costs its own answer, and neither the next one nor the door.
#[test]
fn a_hostile_origin_is_cut_off() {
    let many_1xx = "HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000);
    let fields = (0..5000).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let answers: Vec<(&str, Vec<u8>, bool)> = vec![
        ("two-lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!".to_vec(), true),
        ("bad-length", b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello".to_vec(), true),
        ("bomb", format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes(), true),
        ("line", format!("HTTP/1.1 200 {}\r\n\r\n", "x".repeat(200_000)).into_bytes(), true),
        ("fold", b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n".to_vec(), true),
        ("garbage", b"\x00\x01\x02 nothing\r\n\r\n".to_vec(), true),
        ("1xx", many_1xx.into_bytes(), true),
        (
            "both",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nhello".to_vec(),
            true,
        ),
        (
            "two-codings",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec(),
            true,
        ),
        ("no-content", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello".to_vec(), false),
        ("not-modified", b"HTTP/1.1 304 Not Modified\r\n\r\nsmuggled HTTP/1.1 200 OK\r\n\r\n".to_vec(), false),
    ];
    Outer::run(move |_| {
        let arena = Arena::new(POLICY, "up.corp.test");
        arena.dns.host("bad.corp.test", "192.0.2.11");
        let by_path = answers.clone();
        let bad = Http::start("192.0.2.11:80", move |r| {
            let name = r.target().trim_start_matches('/');
            match by_path.iter().find(|(n, ..)| *n == name) {
                Some((_, bytes, _)) => Response::Raw(bytes.clone()),
                None => Response::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut".to_vec()),
            }
        });
        let ask =
            |path: &str| format!("proxy:GET http://bad.corp.test/{path} HTTP/1.1\\r\\nHost: bad.corp.test\\r\\n\\r\\n");
        let tries: Vec<String> = answers.iter().map(|(n, ..)| ask(n)).collect();
        arena.run(&tries, |mode, run| {
            let mut failed = 0;
            for (attempt, (name, _, broken)) in tries.iter().zip(&answers) {
                let outcome = run.outcome(attempt);
                assert!(outcome.millis < 11_000, "{mode:?} {name} {outcome:?}");
                if *broken {
                    assert_eq!(status(run, attempt), 502, "{mode:?} {name} {outcome:?}");
                    assert!(outcome.what.contains("upstream_framing") || *name == "1xx", "{mode:?} {name} {outcome:?}");
                    failed += 1;
                } else {
                    // Read in one way, and sent on with that framing alone; what is behind it belongs to nobody.
                    let lengths = outcome.what.matches("content-length").count()
                        + outcome.what.matches("transfer-encoding").count();
                    assert!(lengths <= 1, "{mode:?} {name} {outcome:?}");
                    assert!(
                        !outcome.what.contains("smuggled") && !outcome.what.contains("hello"),
                        "{mode:?} {name} {outcome:?}"
                    );
                }
            }
            // Of the 1xx none is the answer, so the end comes before it.
            let told: u64 = ["upstream_framing", "upstream_connect"]
                .iter()
                .flat_map(|r| run.events.with(r))
                .map(|e| e.0["count"].as_u64().unwrap_or(1))
                .sum();
            assert_eq!(told, failed, "{mode:?} {run:?}");
        });
        // A body that is cut off ends as one that is cut off: curl's 18.
        for mode in Mode::available() {
            let run = arena.stockade(*mode).sh("curl -sS --max-time 10 http://bad.corp.test/cut; echo code=$?");
            assert!(run.text().contains("code=18"), "{mode:?} {run:?}");
        }
        assert!(bad.requests().len() >= answers.len());
        let direct: Vec<u8> = {
            let mut stream = TcpStream::connect("192.0.2.11:80").unwrap();
            stream.write_all(b"GET /both HTTP/1.1\r\nHost: bad.corp.test\r\n\r\n").unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all
        };
        assert!(direct.starts_with(b"HTTP/1.1 200 OK"), "tripwire: without the door it is no 502");
    });
}

/// LOG-05: a refusal tells what to do, and nothing of the inside of the outside.
#[test]
fn refusals_tell_nothing_of_the_outside() {
    Outer::run(|outer| {
        let arena = Arena::new(POLICY, "up.corp.test");
        arena.dns.host("inner.corp.test", "10.77.66.55");
        arena.dns.host("closed.corp.test", "192.0.2.77");
        let tries = [
            "inner.corp.test",
            "closed.corp.test",
            "gone.corp.test",
            "secret-tenant.test",
            "169.254.169.254",
            "bad_host",
        ]
        .map(get);
        arena.run(&tries, |mode, run| {
            let dir = run.dir.as_ref().unwrap().path().display().to_string();
            for attempt in &tries {
                let what = run.outcome(attempt).what;
                let (_, body) = what.split_once("\\r\\n\\r\\n").unwrap_or_else(|| panic!("{mode:?} {attempt}: {what}"));
                for word in ["error", "detail", "reason"] {
                    assert!(body.contains(&format!("\\\"{word}\\\":")), "{mode:?} {attempt}: {body}");
                }
                for leak in ["10.77.66.55", "192.0.2.77", "192.0.2.53", "policy.yaml", &dir, "os error", "raw.test"] {
                    assert!(!what.contains(leak), "{mode:?} {attempt} tells {leak}: {what}");
                }
            }
            assert!(run.outcome(&tries[3]).what.contains("\\\"allow\\\":\\\""), "the next step: {mode:?} {run:?}");
            // The operator, who reads the log, does see the address.
            let seen = run.events.one("ssrf_internal");
            assert!(seen.0.to_string().contains("10.77.66.55"), "tripwire: it was known {seen:?}");
        });
        assert!(outer.dir().exists());
    });
}
