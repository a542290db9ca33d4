//! SSRF: where a permitted name or an address really leads. Every address is one of the test's own world, so that what
//! is dialled is there to be reached.

use stockade_testkit::{
    Arena, Mode, Outer, Stockade,
    outer::ip,
    upstream::{Answer, Http},
};

use crate::ask::{answer, connect, each_answered, get, through, told};

/// Port 8080 is where every address answers; a wildcard covers each name, also those of metadata services.
const POLICY: &str = "
version: 1
network:
  endpoints:
    all:
      hosts: ['*.corp.test', '*.google.internal']
      ports: [80, 8080, 10250]
      private_addresses: [192.0.2.0/24, LIFTED]
";

/// What a policy can lift: blocks that hold the addresses of `Some` below, and nothing that may never be dialled.
const LIFTED: &str = "10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/16, 192.0.0.0/28, 198.51.100.0/24, \
                      203.0.113.0/24, 'fc00::/16', '2001:db8::/32'";

fn policy(lifted: &str) -> String {
    POLICY.replace("LIFTED", lifted)
}

const ALWAYS: &str = "ssrf_always_blocked";
const METADATA: &str = "ssrf_metadata";
const INTERNAL: &str = "ssrf_internal";

/// A label, the address that the name leads to, the reason, and whether this machine can dial it at all.
const INSIDE: &[(&str, &str, &str, bool)] = &[
    ("loop4", "127.0.0.1", ALWAYS, true),
    ("loop4end", "127.255.255.254", ALWAYS, true),
    ("any4", "0.0.0.0", ALWAYS, true),
    ("loop6", "::1", ALWAYS, true),
    ("any6", "::", ALWAYS, true),
    ("mapped", "::ffff:127.0.0.1", ALWAYS, true),
    ("compat", "::127.0.0.1", ALWAYS, true),
    ("linklocal", "169.254.1.1", ALWAYS, true),
    ("linklocal6", "fe80::1", ALWAYS, false),
    ("site", "fec0::1", ALWAYS, true),
    ("multicast", "224.0.0.1", ALWAYS, false),
    ("reserved", "240.0.0.1", ALWAYS, true),
    ("broadcast", "255.255.255.255", ALWAYS, false),
    ("nat64loop", "64:ff9b::7f00:1", ALWAYS, true),
    ("sixtofourloop", "2002:7f00:1::", ALWAYS, true),
    ("teredo", "2001:0:102:304:0:0:80ff:fffe", ALWAYS, true),
    ("aws", "169.254.169.254", METADATA, true),
    ("ecs", "169.254.170.2", METADATA, true),
    ("eks", "169.254.170.23", METADATA, true),
    ("alibaba", "100.100.100.200", METADATA, true),
    ("oracle", "192.0.0.192", METADATA, true),
    ("azure", "168.63.129.16", METADATA, true),
    ("aws6", "fd00:ec2::254", METADATA, true),
    ("mappedaws", "::ffff:a9fe:a9fe", METADATA, true),
    ("translated", "::ffff:0:a9fe:a9fe", METADATA, true),
    ("nat64", "64:ff9b::a9fe:a9fe", METADATA, true),
    ("nat64local", "64:ff9b:1::a9fe:a9fe", METADATA, true),
    ("sixtofour", "2002:a9fe:a9fe::", METADATA, true),
    ("teredoaws", "2001:0:1:2:3:4:5601:5601", METADATA, true),
    ("isatap", "2606:4700::5efe:a9fe:a9fe", METADATA, true),
    ("benchmark", "198.18.0.1", INTERNAL, true),
    ("ten", "10.0.0.1", INTERNAL, true),
    ("seventeen", "172.16.0.1", INTERNAL, true),
    ("seventeenend", "172.31.255.254", INTERNAL, true),
    ("onenine", "192.168.0.1", INTERNAL, true),
    ("cgnat", "100.64.0.1", INTERNAL, true),
    ("protocols", "192.0.0.1", INTERNAL, true),
    ("testnet2", "198.51.100.7", INTERNAL, true),
    ("testnet3", "203.0.113.7", INTERNAL, true),
    ("ula", "fc00::1", INTERNAL, true),
    ("doc6", "2001:db8::7", INTERNAL, true),
];

/// Just outside of those: global addresses.
const EDGES: &[(&str, &str)] = &[
    ("edge1", "100.63.255.254"),
    ("edge2", "100.128.0.1"),
    ("edge3", "172.15.255.254"),
    ("edge4", "172.32.0.1"),
    ("edge5", "9.255.255.254"),
    ("edge6", "11.0.0.1"),
    ("edge7", "198.17.255.254"),
    ("edge8", "198.20.0.1"),
    ("edge9", "169.253.255.254"),
    ("edge10", "2606:4700::1111"),
    ("edge11", "::ffff:100.128.0.1"),
];

/// Says hello at port 8080 of every address.
fn everywhere() -> Http {
    ip(&["-4", "route", "add", "local", "0.0.0.0/0", "dev", "lo"]);
    ip(&["-6", "route", "add", "local", "::/0", "dev", "lo"]);
    Http::hello("[::]:8080")
}

fn named(label: &str) -> String {
    format!("{label}.corp.test:8080")
}

/// The same destination, without the proxy.
fn direct(addr: &str) -> String {
    let host = if addr.contains(':') { format!("[{addr}]") } else { addr.to_owned() };
    format!("say:{host}:8080:GET / HTTP/1.1\\r\\nHost: {host}:8080\\r\\nConnection: close\\r\\n\\r\\n")
}

/// SSRF-02, SSRF-04, SSRF-06: a name that a rule allows and that leads inside is refused at both doors.
#[test]
fn allowed_names_that_lead_inside_are_refused() {
    Outer::run(|_| {
        let site = everywhere();
        let arena = Arena::new(&policy("198.51.100.128/25"), "up.corp.test");
        for (label, addr, ..) in INSIDE {
            // By way of another name, as a provider's alias does it.
            arena.dns.host(&format!("{label}.inner.test"), addr);
            arena.dns.set(&format!("{label}.corp.test"), Answer::Alias(format!("{label}.inner.test")));
        }
        EDGES.iter().for_each(|(label, addr)| arena.dns.host(&format!("{label}.corp.test"), addr));
        let both = |(label, _, reason, _): &(&str, &str, &'static str, bool)| {
            [through(&named(label)), get(&named(label))].map(|t| (t, 403, *reason))
        };
        let wanted: Vec<(String, u16, &str)> = INSIDE.iter().flat_map(both).collect();
        let tries: Vec<&str> = wanted.iter().map(|(t, ..)| t.as_str()).collect();
        arena.run(&tries, |mode, run| {
            each_answered(run, &wanted, &format!("{mode:?}"));
            for (label, addr, reason, _) in INSIDE {
                let host = format!("{label}.corp.test");
                let of_host = run.events.with(reason).into_iter().filter(|e| e.host() == Some(&host));
                assert_eq!(of_host.count(), 2, "{mode:?} {host} {addr} {run:?}");
            }
        });
        site.counters().assert_untouched();

        let edges: Vec<String> = EDGES.iter().map(|(label, _)| get(&named(label))).collect();
        let lifted: Vec<String> = INSIDE.iter().filter(|r| r.2 == INTERNAL).map(|r| get(&named(r.0))).collect();
        for mode in Mode::available() {
            let run = arena.stockade(*mode).probe(&edges);
            for attempt in &edges {
                assert_eq!(answer(&run, attempt).0, 200, "control: the edges pass: {mode:?} {run:?}");
            }
            let run = Stockade::new(*mode).policy(&policy(LIFTED)).probe(&lifted);
            let reached = lifted.iter().filter(|t| answer(&run, t).0 == 200).count();
            // The benchmarking block holds the addresses that stand for names inside, so no policy lists it.
            assert_eq!((reached, told(&run, INTERNAL)), (lifted.len() - 1, 1), "tripwire: listed: {mode:?} {run:?}");
        }
        let reachable: Vec<String> = INSIDE.iter().filter(|r| r.3).map(|r| direct(r.1)).collect();
        let bare = arena.unwrapped(&reachable);
        for attempt in &reachable {
            assert_eq!(answer(&bare, attempt).0, 200, "tripwire: without Stockade it is reached: {attempt} {bare:?}");
        }
    });
}

/// What is written in place of a name, and how it is refused.
const SPELLINGS: &[(&str, u16, &str)] = &[
    ("127.0.0.1", 403, ALWAYS),
    ("127.255.255.254", 403, ALWAYS),
    ("[::1]", 403, ALWAYS),
    ("0.0.0.0", 403, ALWAYS),
    ("[::]", 403, ALWAYS),
    ("x.localhost", 403, ALWAYS),
    ("X.LocalHost.", 403, ALWAYS),
    ("localhost.localdomain", 403, ALWAYS),
    ("[::ffff:127.0.0.1]", 403, ALWAYS),
    ("[::127.0.0.1]", 403, ALWAYS),
    ("[fe80::1]", 403, ALWAYS),
    ("[fec0::1]", 403, ALWAYS),
    ("169.254.1.1", 403, ALWAYS),
    ("240.0.0.1", 403, ALWAYS),
    ("127.1", 400, "bad_authority"),
    ("0", 400, "bad_authority"),
    ("2130706433", 400, "bad_authority"),
    ("0x7f.1", 400, "bad_authority"),
    ("017700000001", 400, "bad_authority"),
    ("127.0.0.1.", 400, "bad_authority"),
    ("localhost", 400, "bad_authority"),
    ("localhost.", 400, "bad_authority"),
    ("LOCALHOST", 400, "bad_authority"),
    ("[fe80::1%eth0]", 400, "bad_authority"),
    ("2852039166", 400, "bad_authority"),
    ("metadata", 400, "bad_authority"),
    ("169.254.169.254", 403, METADATA),
    ("169.254.170.2", 403, METADATA),
    ("169.254.170.23", 403, METADATA),
    ("100.100.100.200", 403, METADATA),
    ("192.0.0.192", 403, METADATA),
    ("168.63.129.16", 403, METADATA),
    ("[fd00:ec2::254]", 403, METADATA),
    ("metadata.google.internal", 403, METADATA),
    ("METADATA.google.internal.", 403, METADATA),
    ("[::ffff:a9fe:a9fe]", 403, METADATA),
    ("[::ffff:169.254.169.254]", 403, METADATA),
    ("[::ffff:0:a9fe:a9fe]", 403, METADATA),
    ("[64:ff9b::a9fe:a9fe]", 403, METADATA),
    ("[64:ff9b:1::a9fe:a9fe]", 403, METADATA),
    ("[2002:a9fe:a9fe::]", 403, METADATA),
    ("[2001:0:1:2:3:4:5601:5601]", 403, METADATA),
    ("[2606:4700::5efe:a9fe:a9fe]", 403, METADATA),
];

/// SSRF-01, SSRF-02, SSRF-04: this machine and metadata services, in every spelling, at all three doors; no policy can
/// allow them.
#[test]
fn this_machine_and_metadata_services_are_refused_in_every_spelling() {
    Outer::run(|_| {
        let site = everywhere();
        let arena = Arena::new(&policy("198.51.100.128/25"), "up.corp.test");
        let both = |(host, status, reason): &(&str, u16, &'static str)| {
            let authority = format!("{host}:8080");
            [connect(&authority), get(&authority)].map(|t| (t, *status, *reason))
        };
        let mut wanted: Vec<(String, u16, &str)> = SPELLINGS.iter().flat_map(both).collect();
        // By itself, without the proxy; the sandbox's own loopback is nobody else's.
        let plain = |host: &str| host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().ok();
        let caught = SPELLINGS.iter().filter_map(|(host, _, reason)| Some((plain(host)?, *reason)));
        let caught = caught.filter(|(addr, reason)| *reason == METADATA && !addr.is_loopback());
        wanted.extend(caught.map(|(addr, reason)| (direct(&addr.to_string()), 403, reason)));
        let tries: Vec<&str> = wanted.iter().map(|(t, ..)| t.as_str()).collect();
        arena.run(&tries, |mode, run| each_answered(run, &wanted, &format!("{mode:?}")));
        site.counters().assert_untouched();
        let asked: Vec<String> = arena.dns.queries().into_iter().map(|(name, _)| name).collect();
        assert!(asked.iter().all(|n| n == "up.corp.test"), "no resolver hears of them: {asked:?}");

        let reachable: Vec<String> =
            SPELLINGS.iter().filter_map(|(h, ..)| plain(h)).map(|a| direct(&a.to_string())).collect();
        let bare = arena.unwrapped(&reachable);
        let reached = reachable.iter().filter(|t| answer(&bare, t).0 == 200).count();
        // fe80::1 needs a link.
        assert_eq!(reached, reachable.len() - 1, "tripwire: without Stockade they are reached: {bare:?}");
    });
    for (key, value) in [
        ("hosts", "127.0.0.1"),
        ("hosts", "'[::1]'"),
        ("hosts", "169.254.169.254"),
        ("hosts", "localhost"),
        ("hosts", "metadata.google.internal"),
        ("private_addresses", "127.0.0.0/8"),
        ("private_addresses", "169.254.0.0/16"),
        ("private_addresses", "0.0.0.0/0"),
        ("private_addresses", "'fd00:ec2::/32'"),
    ] {
        let other = if key == "hosts" { "ports: [80]" } else { "hosts: [a.test]" };
        let text = format!("version: 1\nnetwork: {{endpoints: {{e: {{{key}: [{value}], {other}}}}}}}\n");
        let run = Stockade::new(Mode::Rootless).policy(&text).sh("echo ran");
        assert_eq!((run.code(), run.text().as_str()), (125, ""), "{text} {run:?}");
        assert!(run.stderr.contains(value.trim_matches('\'')), "named: {text} {run:?}");
    }
}

/// SSRF-08: a port of a control plane is refused also in a network that the policy lists.
#[test]
fn a_control_plane_port_is_refused_in_an_allowed_network() {
    Outer::run(|_| {
        let kubelet = Http::hello("192.0.2.11:10250");
        let arena = Arena::new(&policy("198.51.100.128/25"), "up.corp.test");
        arena.dns.host("kubelet.corp.test", "192.0.2.11");
        let wanted = [through("kubelet.corp.test:10250"), get("kubelet.corp.test:10250")];
        let wanted = wanted.map(|t| (t, 403, "control_plane_port"));
        arena.run(&[&wanted[0].0, &wanted[1].0], |mode, run| each_answered(run, &wanted, &format!("{mode:?}")));
        kubelet.counters().assert_untouched();
        arena.unwrapped(&["tcp:192.0.2.11:10250"]);
        assert_eq!(kubelet.counters().arrivals(), 1, "tripwire: it is there to be reached");
    });
}
