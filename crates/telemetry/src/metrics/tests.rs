use stockade_types::Generation;

use super::*;

fn network(action: Action, door: &'static str, host: &str) -> Network {
    Network { host: Some(host.into()), ..Network::new(action, door, Generation::FIRST) }
}

fn counted(events: &[Event]) -> String {
    let metrics = Metrics::new(Health::default(), Box::new(Vec::new));
    events.iter().for_each(|e| metrics.0.events.count(e));
    metrics.text().unwrap()
}

#[test]
fn verdicts_are_counted_with_what_was_folded() {
    let denied = Network {
        reason: Some(Reason::NoPolicy),
        suppressed: 41,
        ..network(Action::Denied, "connect", "secret-host.test")
    };
    let closed = Network { bytes_out: 7, bytes_in: 9, ..network(Action::Closed, "connect", "a.test") };
    let request = Http {
        network: network(Action::Allowed, "forward", "a.test"),
        method: "GET".into(),
        path: "/secret-path".into(),
        status: 204,
    };
    let dns = Network { reason: Some(Reason::DnsNoPolicy), ..network(Action::Denied, "dns", "x.test") };
    let fence = Network { reason: Some(Reason::Bypass), protocol: 17, ..network(Action::Denied, "fence", "x.test") };
    let lost = Finding { reason: Reason::Bypass, severity: 2, detail: "secret-detail".into(), count: 5 };
    let text = counted(&[
        Event::Network(denied),
        Event::Network(closed),
        Event::Http(request),
        Event::Network(dns),
        Event::Network(fence),
        Event::Finding(lost),
    ]);
    for line in [
        r#"stockade_connections_total{door="connect",outcome="denied",reason="no_policy"} 42"#,
        r#"stockade_tunnel_bytes_total{direction="out"} 7"#,
        r#"stockade_tunnel_bytes_total{direction="in"} 9"#,
        r#"stockade_requests_total{door="forward",outcome="allowed",reason="none"} 1"#,
        r#"stockade_responses_total{class="2xx"} 1"#,
        r#"stockade_dns_refused_total{reason="dns_no_policy"} 1"#,
        r#"stockade_fence_refused_total{protocol="udp"} 1"#,
        r#"stockade_fence_refused_total{protocol="unreported"} 5"#,
        r#"stockade_findings_total{reason="bypass",severity="2"} 1"#,
        "stockade_ready 0",
        r#"stockade_check{check="fence"} 1"#,
        r#"stockade_check{check="door"} 0"#,
    ] {
        assert!(text.lines().any(|l| l.trim_end_matches(".0") == line), "{line}\n{text}");
    }
    assert!(!text.contains("secret"), "nothing that the command says is a label:\n{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn the_number_of_series_does_not_grow_with_what_the_command_says() {
    let event = |n: u32| {
        let mut network = network(Action::Denied, "transparent", &format!("host-{n}.test"));
        network.port = u16::try_from(n % 60_000).ok();
        network.endpoint = Some(format!("endpoint-{n}"));
        Event::Http(Http { network, method: format!("M{n}"), path: format!("/{n}"), status: 403 })
    };
    let one = counted(&[event(1)]).lines().count();
    let many: Vec<Event> = (0..10_000).map(event).collect();
    assert_eq!(counted(&many).lines().count(), one);
}

#[test]
fn readings_are_asked_for_each_time() {
    let source = Box::new(|| {
        vec![
            Reading::one(Kind::Counter, "accepted", "Connections accepted", 3.0),
            Reading::by("result", (Kind::Counter, "lookups", "Lookups"), [("ok", 2.0), ("failed", 1.0)]),
        ]
    });
    let text = Metrics::new(Health::default(), source).text().unwrap();
    for line in ["stockade_accepted_total 3", r#"stockade_lookups_total{result="ok"} 2"#] {
        assert!(text.lines().any(|l| l.trim_end_matches(".0") == line), "{line}\n{text}");
    }
}
