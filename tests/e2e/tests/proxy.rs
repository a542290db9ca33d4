//! What the command may send to the proxy (SSRF, PRX): destinations, authorities, things that are no request.
#![forbid(unsafe_code)]

use stockade_testkit::{
    Arena, Finished, Mode, Outer, Stockade,
    outer::RESOLVER,
    upstream::{Answer, Dns, Http, Tcp},
};

/// Everything below `.corp.test` on three ports, with the documentation ranges: what is refused here is not refused for
/// want of a rule.
const WIDE: &str = "
version: 1
network:
  endpoints:
    all:
      hosts: ['*.corp.test']
      ports: [80, 443, 10250]
      tls: passthrough
      private_addresses: [192.0.2.0/24, 198.51.100.0/24]
";

fn connect(authority: &str) -> String {
    format!("proxy:CONNECT {authority} HTTP/1.1\\r\\nHost: {authority}\\r\\n\\r\\n")
}

fn get(authority: &str) -> String {
    format!("proxy:GET http://{authority}/ HTTP/1.1\\r\\nHost: {authority}\\r\\n\\r\\n")
}

/// Runs the tries in every mode; each that goes to the proxy must leave exactly one event.
fn each_refused(tries: &[String], prepare: impl Fn(&Dns), check: impl Fn(Mode, &Finished, &Dns)) {
    let arena = Arena::new(WIDE, "up.corp.test");
    prepare(&arena.dns);
    arena.run(tries, |mode, run| {
        let refused = tries.iter().filter(|t| t.starts_with("proxy:")).count();
        assert_eq!(run.events.refusals(), refused as u64, "one event for each refusal: {mode:?} {run:?}");
        check(mode, run, &arena.dns);
    });
}

/// The status and the reason in the body of an answer.
#[track_caller]
fn refusal(run: &Finished, attempt: &str) -> (u16, String) {
    let what = run.outcome(attempt).what;
    let status = what.strip_prefix("ok HTTP/1.1 ").and_then(|w| w.get(..3)?.parse().ok()).unwrap_or_default();
    let reason = what.split("\\\"reason\\\":\\\"").nth(1).and_then(|w| w.split('\\').next()).unwrap_or_default();
    (status, reason.to_owned())
}

#[test]
fn loopback_in_every_spelling_is_refused() {
    Outer::run(|_| {
        let sinks = [Tcp::sink("127.0.0.1:80"), Tcp::sink("[::1]:80")];
        let spellings = [
            "127.0.0.1",
            "127.1",
            "127.255.255.254",
            "localhost",
            "localhost.",
            "LOCALHOST",
            "[::1]",
            "0.0.0.0",
            "[::]",
            "0",
        ];
        let tries: Vec<_> =
            spellings.iter().flat_map(|s| [connect(&format!("{s}:80")), get(&format!("{s}:80"))]).collect();
        each_refused(
            &tries,
            |_| {},
            |mode, run, _| {
                for attempt in &tries {
                    let (status, reason) = refusal(run, attempt);
                    assert!(
                        matches!(status, 400 | 403) && !reason.is_empty(),
                        "{mode:?} {attempt} {status} {reason}\n{run:?}"
                    );
                }
            },
        );
        sinks.iter().for_each(|s| s.counters.assert_untouched());
        Stockade::new(Mode::Rootless).unwrapped().probe(&["tcp:127.0.0.1:80", "tcp:[::1]:80"]);
        assert!(sinks.iter().all(|s| s.counters.arrivals() == 1), "tripwire: the listeners are there to be reached");
    });
}

#[test]
fn names_that_resolve_to_this_machine_metadata_or_unlisted_networks_are_refused() {
    let table = [
        ("loop4", "127.0.0.1", "ssrf_always_blocked"),
        ("any4", "0.0.0.0", "ssrf_always_blocked"),
        ("loop6", "::1", "ssrf_always_blocked"),
        ("mapped", "::ffff:127.0.0.1", "ssrf_always_blocked"),
        ("compat", "::127.0.0.1", "ssrf_"),
        ("linklocal", "169.254.1.1", "ssrf_always_blocked"),
        ("aws", "169.254.169.254", "ssrf_metadata"),
        ("ecs", "169.254.170.2", "ssrf_metadata"),
        ("eks", "169.254.170.23", "ssrf_metadata"),
        ("alibaba", "100.100.100.200", "ssrf_metadata"),
        ("oracle", "192.0.0.192", "ssrf_metadata"),
        ("azure", "168.63.129.16", "ssrf_metadata"),
        ("aws6", "fd00:ec2::254", "ssrf_metadata"),
        ("mappedaws", "::ffff:a9fe:a9fe", "ssrf_metadata"),
        ("nat64", "64:ff9b::a9fe:a9fe", "ssrf_"),
        ("sixtofour", "2002:a9fe:a9fe::1", "ssrf_"),
        ("teredo", "2001:0:a9fe:a9fe::1", "ssrf_"),
        ("site", "fec0::1", "ssrf_"),
        ("ten", "10.0.0.1", "ssrf_internal"),
        ("seventeen", "172.16.0.1", "ssrf_internal"),
        ("onenine", "192.168.0.1", "ssrf_internal"),
        ("cgnat", "100.64.0.1", "ssrf_internal"),
        ("benchmark", "198.18.0.1", "ssrf_"),
        ("testnet", "203.0.113.1", "ssrf_internal"),
        ("multicast", "224.0.0.1", "ssrf_always_blocked"),
        ("reserved", "240.0.0.1", "ssrf_always_blocked"),
        ("broadcast", "255.255.255.255", "ssrf_always_blocked"),
        ("ula", "fc00::1", "ssrf_internal"),
    ];
    Outer::run(|_| {
        let tries: Vec<_> = table
            .iter()
            .flat_map(|(n, ..)| [connect(&format!("{n}.corp.test:443")), get(&format!("{n}.corp.test"))])
            .collect();
        let prepare = |dns: &Dns| table.iter().for_each(|(n, addr, _)| dns.host(&format!("{n}.corp.test"), addr));
        each_refused(&tries, prepare, |mode, run, _| {
            for (attempt, (name, addr, want)) in tries.iter().zip(table.iter().flat_map(|row| [row, row])) {
                let (status, reason) = refusal(run, attempt);
                assert!(status == 403 && reason.starts_with(want), "{mode:?} {name} {addr}: {status} {reason}");
            }
        });
    });
}

#[test]
fn broken_authorities_are_refused_before_policy_and_dns() {
    let hosts = [
        "evil.test\\0.up.corp.test:80",
        "up.corp.test@evil.test:80",
        "up.corp.test:80@evil.test:80",
        "up.corp.test\\\\@evil.test:80",
        "up.corp.test%2eevil.test:80",
        "up.corp.test#@evil.test:80",
        "up.corp.test:0",
        "up.corp.test:65536",
        "up.corp.test:-1",
        "up.corp.test:00443",
        "up.corp.test:443:80",
        "[::1",
        "[::1]:443x",
        "up.corp.test:４４３",
        ".up.corp.test:80",
        "up..test:80",
        "up_test%zz:80",
    ];
    Outer::run(|_| {
        let tries: Vec<_> = hosts.iter().flat_map(|h| [connect(h), get(h)]).collect();
        each_refused(
            &tries,
            |_| {},
            |mode, run, dns| {
                for attempt in &tries {
                    let (status, reason) = refusal(run, attempt);
                    assert!(matches!(status, 400 | 403), "{mode:?} {attempt}: {status} {reason}\n{run:?}");
                }
                let asked: Vec<_> = dns.queries().into_iter().filter(|(name, _)| name != "up.corp.test").collect();
                assert_eq!(asked, [], "{mode:?}: no resolver saw any of them");
            },
        );
    });
}

#[test]
fn wildcards_match_what_is_documented() {
    Outer::run(|_| {
        let outside = [
            "corp.test:443",
            "a.b.corp.test:443",
            "up.corp.test.evil.example:443",
            "upcorp.test:443",
            "evilcorp.test:443",
        ];
        let tries: Vec<_> = outside.iter().map(|a| connect(a)).collect();
        each_refused(
            &tries,
            |_| {},
            |mode, run, _| {
                for attempt in &tries {
                    let (status, reason) = refusal(run, attempt);
                    assert!(
                        matches!(status, 400 | 403) && reason != "ssrf_internal",
                        "{mode:?} {attempt}: {status} {reason}"
                    );
                }
            },
        );
    });
}

#[test]
fn the_address_of_an_allowed_host_is_not_the_host() {
    Outer::run(|_| {
        let tries = [
            connect("192.0.2.10:80"),
            "proxy:GET http://192.0.2.10/ HTTP/1.1\\r\\nHost: up.corp.test\\r\\n\\r\\n".to_owned(),
        ];
        each_refused(
            &tries,
            |_| {},
            |mode, run, _| {
                for attempt in &tries {
                    let (status, reason) = refusal(run, attempt);
                    assert!(
                        matches!(status, 400 | 403 | 421) && !reason.is_empty(),
                        "{mode:?} {attempt}: {status} {reason}"
                    );
                }
            },
        );
    });
}

#[test]
fn a_control_plane_port_is_refused_in_an_allowed_network() {
    Outer::run(|_| {
        let sink = Tcp::sink("192.0.2.11:10250");
        let tries = [connect("kubelet.corp.test:10250")];
        each_refused(
            &tries,
            |dns| dns.host("kubelet.corp.test", "192.0.2.11"),
            |mode, run, _| {
                assert_eq!(refusal(run, &tries[0]), (403, "control_plane_port".to_owned()), "{mode:?} {run:?}");
            },
        );
        sink.counters.assert_untouched();
        Stockade::new(Mode::Rootless).unwrapped().probe(&["tcp:192.0.2.11:10250"]);
        assert_eq!(sink.counters.arrivals(), 1, "tripwire: it is there to be reached");
    });
}

#[test]
fn a_name_that_rebinds_is_looked_up_once() {
    Outer::run(|_| {
        let inside = Tcp::sink("127.0.0.1:80");
        let turns = vec![vec![[192, 0, 2, 10].into()], vec![[127, 0, 0, 1].into()]];
        let dns = Dns::start((RESOLVER, 53));
        let site = Http::hello("192.0.2.10:80");
        for (index, mode) in Mode::available().iter().enumerate() {
            let name = format!("turn{index}.corp.test");
            dns.set(&name, Answer::Turns(turns.clone()));
            let (first, second) = (get(&name), connect(&format!("{name}:80")));
            let run = Stockade::new(*mode).policy(WIDE).probe(&[&first, &second]);
            assert!(run.outcome(&first).what.starts_with("ok HTTP/1.1 200"), "{mode:?} {run:?}");
            assert_eq!(site.requests().len(), index + 1);
            // The second lookup gives loopback: its connection is refused, not sent to the address of the first.
            let (status, reason) = refusal(&run, &second);
            assert_eq!((status, &*reason), (403, "ssrf_always_blocked"), "{mode:?} {run:?}");
        }
        inside.counters.assert_untouched();
    });
}

#[test]
fn bad_addresses_of_a_mixed_answer_are_never_dialled() {
    Outer::run(|_| {
        let inside = [Tcp::sink("127.0.0.1:80"), Tcp::sink("[::1]:80")];
        // Nothing listens on .99: the good one fails first, and fallback finds nothing else to try.
        let mixed = ["192.0.2.99", "127.0.0.1", "::1"].map(|a| a.parse().unwrap()).to_vec();
        let tries = [get("mixed.corp.test")];
        each_refused(
            &tries,
            |dns| dns.set("mixed.corp.test", Answer::Addrs(mixed.clone())),
            |mode, run, _| {
                let (status, _) = refusal(run, &tries[0]);
                assert!((400..600).contains(&status), "{mode:?} {run:?}");
            },
        );
        inside.iter().for_each(|s| s.counters.assert_untouched());
    });
}

#[test]
fn what_is_no_proxy_request_is_closed_in_bounded_time() {
    Outer::run(|_| {
        let tries = [
            "proxy:GET /x HTTP/1.1\\r\\nHost: up.corp.test\\r\\n\\r\\n",
            "proxy:PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n",
            "proxy:\\0\\0\\0\\0",
            "proxy:SSH-2.0-x\\r\\n\\r\\n",
            "proxy:nonsense\\r\\n\\r\\n",
        ]
        .map(str::to_owned);
        each_refused(
            &tries,
            |_| {},
            |mode, run, _| {
                for attempt in &tries {
                    let outcome = run.outcome(attempt);
                    let refused = !outcome.what.starts_with("ok HTTP") || refusal(run, attempt).0 >= 400;
                    assert!(refused && outcome.millis < 11_000, "{mode:?} {attempt} {outcome:?}");
                }
            },
        );
    });
}

#[test]
fn the_proxy_s_ports_cannot_be_taken() {
    Outer::run(|_| {
        let tries = ["listen:127.0.0.1:3128", "listen:0.0.0.0:3128", "listen:127.0.0.1:53"].map(str::to_owned);
        each_refused(
            &tries,
            |_| {},
            |mode, run, _| {
                for attempt in &tries {
                    let what = run.outcome(attempt).what;
                    assert!(matches!(&*what, "EADDRINUSE" | "EACCES"), "{mode:?} {attempt} {what}");
                }
            },
        );
    });
}
