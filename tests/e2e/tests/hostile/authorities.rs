//! PRX and SSRF: how a destination is written, and which one is meant.

use stockade_testkit::{Arena, Mode, Outer, Stockade, upstream::Http};

use crate::ask::{answer, connect, each_answered, get};

const POLICY: &str = "
version: 1
network:
  endpoints:
    all: {hosts: ['*.corp.test'], ports: [80], private_addresses: [192.0.2.0/24]}
";

/// The same with these hosts besides.
fn allowing(hosts: &str) -> String {
    format!("{POLICY}    more: {{hosts: [{hosts}], ports: [80], private_addresses: [192.0.2.0/24]}}\n")
}

const EVIL: &str = "192.0.2.66";

/// An arena in which these names lead to an origin that nothing may reach.
fn world(names: &[&str]) -> (Arena, Http) {
    let arena = Arena::new(POLICY, "up.corp.test");
    names.iter().for_each(|name| arena.dns.host(name, EVIL));
    (arena, Http::hello((EVIL, 80)))
}

#[track_caller]
fn nobody_asked(arena: &Arena) {
    let others: Vec<String> =
        arena.dns.queries().into_iter().map(|(name, _)| name).filter(|n| n != "up.corp.test").collect();
    assert_eq!(others, [] as [&str; 0], "no resolver hears of them");
}

/// PRX-01: the verdict comes before name and connection, and says what to do about it.
#[test]
fn a_host_outside_the_policy_is_refused_before_anything_is_asked() {
    Outer::run(|_| {
        let (arena, evil) = world(&["evil.test"]);
        let wanted = [connect("evil.test:80"), get("evil.test")].map(|t| (t, 403, "no_policy"));
        arena.run(&[&wanted[0].0, &wanted[1].0], |mode, run| {
            each_answered(run, &wanted, &format!("{mode:?}"));
            for (attempt, ..) in &wanted {
                let what = run.outcome(attempt).what;
                let told = ["error", "detail", "reason", "allow"];
                assert!(told.iter().all(|key| what.contains(&format!("\\\"{key}\\\":\\\""))), "{mode:?} {what}");
            }
            for event in run.events.with("no_policy") {
                assert_eq!((event.host(), event.port()), (Some("evil.test"), Some(80)), "{mode:?} {event:?}");
                assert!(event.0.pointer("/unmapped/generation").is_some(), "{mode:?} {event:?}");
            }
        });
        nobody_asked(&arena);
        evil.counters().assert_untouched();
        let run = Stockade::new(Mode::Rootless).policy(&allowing("evil.test")).probe(&[&wanted[1].0]);
        assert_eq!(answer(&run, &wanted[1].0).0, 200, "tripwire: with a rule it is reached: {run:?}");
        assert_eq!(evil.requests().len(), 1);
    });
}

/// SSRF-09, SSRF-10, SSRF-11: an authority that two readers could read differently has no reading.
#[test]
fn broken_authorities_are_refused_before_policy_and_dns() {
    let hosts = [
        "evil.test\\0.up.corp.test:80",
        "up.corp.test\\0.evil.test:80",
        "up.corp.test@evil.test:80",
        "up.corp.test:80@evil.test:80",
        "up.corp.test\\\\@evil.test:80",
        "up.corp.test%2eevil.test:80",
        "up.corp.test#@evil.test:80",
        "up.corp.test\\t.evil.test:80",
        "up.corp.test。evil.test:80",
        "up.corp.test:0",
        "up.corp.test:65536",
        "up.corp.test:-1",
        "up.corp.test:00443",
        "up.corp.test:443:80",
        "up.corp.test:４４３",
        "[::1",
        "[::1]:443x",
        ".up.corp.test:80",
        "up..test:80",
        "up_test%zz:80",
    ];
    let fields = ["evil.test\\0.up.corp.test", "up.corp.test@evil.test", "up.corp.test:80:80"];
    let split = ["up.corp.test\\r.evil.test:80", "up.corp.test\\n.evil.test:80", "up.corp.test .evil.test:80"];
    Outer::run(|_| {
        let (arena, evil) = world(&["evil.test", "up.corp.test.evil.test"]);
        let mut tries: Vec<(String, &[&str])> = Vec::new();
        for host in hosts {
            tries.extend([connect(host), get(host)].map(|t| (t, &["bad_authority"][..])));
        }
        for host in fields {
            let head =
                format!("proxy:GET http://up.corp.test/ HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n");
            tries.push((head, &["bad_authority", "framing"]));
        }
        for host in split {
            tries.extend(
                [connect(host), get(host)]
                    .map(|t| (t, &["bad_authority", "framing", "bad_request", "unknown_protocol"][..])),
            );
        }
        let words: Vec<&str> = tries.iter().map(|(t, _)| t.as_str()).collect();
        arena.run(&words, |mode, run| {
            for (attempt, reasons) in &tries {
                let (status, reason) = answer(run, attempt);
                assert!(status == 400 && reasons.contains(&&*reason), "{mode:?} {attempt}: {status} {reason}\n{run:?}");
            }
            assert_eq!(run.events.refusals(), tries.len() as u64, "one event for each: {mode:?} {run:?}");
        });
        nobody_asked(&arena);
        evil.counters().assert_untouched();
        let bare = Stockade::new(Mode::Rootless).unwrapped().sh("curl -sS http://up.corp.test@evil.test/");
        assert_eq!(bare.text(), "hello from upstream\n", "tripwire: to a client by itself this is evil.test: {bare:?}");
        assert_eq!(evil.requests().len(), 1);
    });
}

/// SSRF-12: a wildcard is one label in front of its parent, and nothing else.
#[test]
fn wildcards_match_what_is_documented() {
    let outside = ["corp.test", "a.b.corp.test", "up.corp.test.evil.test", "upcorp.test", "evilcorp.test"];
    Outer::run(|_| {
        let (arena, evil) = world(&outside);
        let wanted: Vec<(String, u16, &str)> = outside
            .iter()
            .flat_map(|host| [connect(&format!("{host}:80")), get(host)])
            .map(|t| (t, 403, "no_policy"))
            .collect();
        let tries: Vec<&str> = wanted.iter().map(|(t, ..)| t.as_str()).collect();
        arena.run(&tries, |mode, run| each_answered(run, &wanted, &format!("{mode:?}")));
        nobody_asked(&arena);
        evil.counters().assert_untouched();
        let inside = ["UP.corp.test", "up.corp.test.", "up.CORP.test.:80"].map(get);
        let listed = outside.map(get);
        for mode in Mode::available() {
            let run = arena.stockade(*mode).probe(&inside);
            assert!(inside.iter().all(|t| answer(&run, t).0 == 200), "control: one name, however written: {run:?}");
            let run = Stockade::new(*mode).policy(&allowing(&outside.join(", "))).probe(&listed);
            assert!(listed.iter().all(|t| answer(&run, t).0 == 200), "tripwire: listed, they are reached: {run:?}");
        }
    });
}

/// SSRF-13: the address of an allowed host is another destination.
#[test]
fn the_address_of_an_allowed_host_is_not_the_host() {
    Outer::run(|_| {
        let (arena, _evil) = world(&[]);
        let by_address =
            "proxy:GET http://192.0.2.10/ HTTP/1.1\\r\\nHost: up.corp.test\\r\\nConnection: close\\r\\n\\r\\n";
        let wanted = [
            (connect("192.0.2.10:80"), 403, "no_policy"),
            (get("192.0.2.10"), 403, "no_policy"),
            (get("[::ffff:192.0.2.10]"), 403, "no_policy"),
            (by_address.to_owned(), 421, "authority_mismatch"),
        ];
        let tries: Vec<&str> = wanted.iter().map(|(t, ..)| t.as_str()).collect();
        arena.run(&tries, |mode, run| each_answered(run, &wanted, &format!("{mode:?}")));
        let run = Stockade::new(Mode::Rootless).policy(&allowing("192.0.2.10")).probe(&tries[1..2]);
        assert_eq!(answer(&run, tries[1]).0, 200, "tripwire: declared, it is reached: {run:?}");
    });
}
