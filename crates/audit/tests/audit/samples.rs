//! One event of every kind.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use stockade_audit::{
    Action, Config, Event, Finding, Http, Lifecycle, Network, Process, ProcessActivity, Record, Segment, SegmentKind,
    Ssh, Torn,
};
use stockade_types::{Enforcement, Generation, Layer, LayerStatus, Reason, SandboxId};

pub(crate) fn sandbox() -> SandboxId {
    SandboxId::from_random([0x5a; 8])
}

pub(crate) fn record(sequence: u64, event: Event) -> Record {
    Record { sequence, time_ms: 1_795_329_467_123, sandbox: Arc::new(sandbox()), event }
}

pub(crate) fn network(action: Action) -> Network {
    Network {
        action,
        reason: None,
        door: "connect",
        protocol: 6,
        host: Some("api.example.test".into()),
        addr: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10))),
        port: Some(443),
        endpoint: Some("api".into()),
        rule: None,
        generation: Generation(3),
        detail: None,
        suggestion: None,
        process: Some(Process::new(7, "/usr/bin/curl".into(), 1000)),
        suppressed: 0,
        bytes_out: 0,
        bytes_in: 0,
        audited: false,
        connection: 0,
        duration_ms: None,
    }
}

fn denied() -> Network {
    Network {
        reason: Some(Reason::NoPolicy),
        host: Some("evil.example.test".into()),
        addr: None,
        endpoint: None,
        rule: Some("network.unmatched".into()),
        detail: Some("no endpoint of the policy names it".into()),
        suggestion: Some("hosts: [evil.example.test]".into()),
        suppressed: 11,
        ..network(Action::Denied)
    }
}

fn fence() -> Network {
    Network {
        reason: Some(Reason::Bypass),
        door: "fence",
        protocol: 17,
        host: None,
        addr: Some(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))),
        port: Some(53),
        endpoint: None,
        process: None,
        ..network(Action::Denied)
    }
}

/// Name of the golden file, and the event.
pub(crate) fn all() -> Vec<(&'static str, Event)> {
    let closed = Network {
        bytes_out: 517,
        bytes_in: 100_000,
        connection: 12,
        duration_ms: Some(340),
        ..network(Action::Closed)
    };
    let audited = Network { audited: true, reason: Some(Reason::PolicyDeny), ..network(Action::Allowed) };
    let failed = Network { reason: Some(Reason::UpstreamConnect), ..network(Action::Failed) };
    let request = Http { network: denied(), method: "GET".into(), path: "/a b".into(), status: 403 };
    let argv = vec!["sh".into(), "-c".into(), "echo \u{1b}]0;owned\u{7}\n".into()];
    let launch = ProcessActivity { launched: true, pid: 2, argv, uid: 1000, exit: None };
    let exit = ProcessActivity { launched: false, exit: Some(137), ..launch.clone() };
    let config = Config {
        accepted: true,
        reason: None,
        generation: Generation(1),
        source: "policy.yaml".into(),
        digest: "00".repeat(32),
        detail: "2 endpoints".into(),
    };
    let rejected = Config { accepted: false, reason: Some(Reason::PolicyRejected), ..config.clone() };
    let layers = vec![
        LayerStatus { layer: Layer::Netns, enforcement: Enforcement::Enforced },
        LayerStatus { layer: Layer::Limits, enforcement: Enforcement::Absent("no cgroup".into()) },
    ];
    let ready = Lifecycle { phase: "ready", reason: None, layers, detail: String::new() };
    let fail = Lifecycle {
        phase: "fail",
        reason: Some(Reason::FenceUnavailable),
        layers: Vec::new(),
        detail: "no nf_tables".into(),
    };
    let lost = Finding { reason: Reason::AuditLost, severity: 3, detail: "9 events were lost".into(), count: 9 };
    let login = Ssh {
        action: Action::Allowed,
        reason: None,
        what: "login",
        peer: "192.0.2.7:50022".into(),
        user: "sandbox".into(),
        key: Some("SHA256:abc".into()),
        target: None,
        detail: None,
    };
    let forward = Ssh {
        action: Action::Denied,
        reason: Some(Reason::ForwardTarget),
        what: "forward",
        key: None,
        target: Some(("127.0.0.1".into(), 3128)),
        detail: Some("it is Stockade's own".into()),
        ..login.clone()
    };
    let torn = Some(Torn { bytes: 17, sha256: "ab".repeat(32) });
    vec![
        ("network-allowed", Event::Network(network(Action::Allowed))),
        ("network-audited", Event::Network(audited)),
        ("network-denied", Event::Network(denied())),
        ("network-fence", Event::Network(fence())),
        ("network-failed", Event::Network(failed)),
        ("network-closed", Event::Network(closed)),
        ("http-denied", Event::Http(request)),
        ("process-launch", Event::Process(launch)),
        ("process-exit", Event::Process(exit)),
        ("config-accepted", Event::Config(config)),
        ("config-rejected", Event::Config(rejected)),
        ("lifecycle-ready", Event::Lifecycle(ready)),
        ("lifecycle-fail", Event::Lifecycle(fail)),
        ("finding", Event::Finding(lost)),
        ("log-genesis", Event::Log(Segment { kind: SegmentKind::Genesis, torn: None })),
        ("log-repaired", Event::Log(Segment { kind: SegmentKind::Repaired, torn })),
        ("ssh-login", Event::Ssh(login)),
        ("ssh-forward", Event::Ssh(forward)),
    ]
}
