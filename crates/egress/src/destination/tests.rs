use super::*;

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

fn vetted(addrs: &[&str], port: u16, private: &[&str]) -> Result<Vec<String>, Reason> {
    let private: Vec<Cidr> = private.iter().map(|c| c.parse().unwrap()).collect();
    let config = Config { own_ports: [9090].into(), ..Config::default() };
    match vet(&ips(addrs), Port::new(port).unwrap(), &private, &config) {
        Ok(d) => Ok(d.0.iter().map(|a| a.ip().to_string()).collect()),
        Err(DestinationError::Blocked(block, Some(_))) => Err(block.reason()),
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn only_global_and_listed_private_addresses_are_dialled() {
    assert_eq!(vetted(&["8.8.8.8"], 443, &[]).unwrap(), ["8.8.8.8"]);
    assert_eq!(vetted(&["::ffff:8.8.8.8"], 443, &[]).unwrap(), ["8.8.8.8"], "mapped is IPv4");
    assert_eq!(vetted(&["100.63.255.254", "100.128.0.1"], 443, &[]).unwrap().len(), 2, "edges of shared space");
    assert_eq!(vetted(&["10.1.2.3"], 443, &[]), Err(Reason::SsrfInternal));
    assert_eq!(vetted(&["10.1.2.3"], 443, &["10.0.0.0/8"]).unwrap(), ["10.1.2.3"]);
    assert_eq!(vetted(&["10.1.2.3"], 443, &["10.2.0.0/16"]), Err(Reason::SsrfInternal));
}

#[test]
fn loopback_and_metadata_are_never_dialled_whatever_is_listed() {
    let all = ["0.0.0.0/0", "::/0"];
    for (addr, reason) in [
        ("127.0.0.1", Reason::SsrfAlwaysBlocked),
        ("0.0.0.0", Reason::SsrfAlwaysBlocked),
        ("::1", Reason::SsrfAlwaysBlocked),
        ("169.254.1.1", Reason::SsrfAlwaysBlocked),
        ("::ffff:127.0.0.1", Reason::SsrfAlwaysBlocked),
        ("2002:7f00:1::", Reason::SsrfAlwaysBlocked),
        ("64:ff9b::808:808", Reason::SsrfAlwaysBlocked),
        ("169.254.169.254", Reason::SsrfMetadata),
        ("::ffff:a9fe:a9fe", Reason::SsrfMetadata),
        ("100.100.100.200", Reason::SsrfMetadata),
        ("168.63.129.16", Reason::SsrfMetadata),
        ("fd00:ec2::254", Reason::SsrfMetadata),
    ] {
        assert_eq!(vetted(&[addr], 443, &all), Err(reason), "{addr}");
    }
}

#[test]
fn blocked_addresses_leave_a_mixed_answer_and_the_worst_names_the_reason() {
    let mixed = ["127.0.0.1", "8.8.8.8", "169.254.169.254", "::1", "8.8.8.8"];
    assert_eq!(vetted(&mixed, 443, &[]).unwrap(), ["8.8.8.8"]);
    assert_eq!(vetted(&["10.0.0.1", "169.254.169.254", "127.0.0.1"], 443, &[]), Err(Reason::SsrfMetadata));
}

#[test]
fn control_plane_ports_are_refused_on_private_addresses() {
    for port in CONTROL_PLANE {
        assert_eq!(vetted(&["10.0.0.1"], port, &["10.0.0.0/8"]), Err(Reason::ControlPlanePort));
        assert!(vetted(&["8.8.8.8"], port, &[]).is_ok(), "a public service may use port {port}");
    }
}

#[test]
fn the_supervisors_own_ports_are_refused_on_this_machine_only() {
    assert!(is_this_machine("127.0.0.1".parse().unwrap()), "control");
    assert!(!is_this_machine("192.0.2.77".parse().unwrap()));
    assert!(vetted(&["10.9.8.7"], 9090, &["10.0.0.0/8"]).is_ok(), "somebody else's port 9090");
}

#[test]
fn literals_and_reserved_names_are_refused_before_policy() {
    let reason = |text: &str| match precheck(&Host::parse(text).unwrap()) {
        Ok(()) => None,
        Err(DestinationError::Blocked(block, _)) => Some(block.reason()),
        Err(e) => panic!("{e}"),
    };
    assert_eq!(reason("127.0.0.1"), Some(Reason::SsrfAlwaysBlocked));
    assert_eq!(reason("[::1]"), Some(Reason::SsrfAlwaysBlocked));
    assert_eq!(reason("a.localhost"), Some(Reason::SsrfAlwaysBlocked));
    assert_eq!(reason("LOCALHOST.localdomain"), Some(Reason::SsrfAlwaysBlocked));
    assert_eq!(reason("Metadata.Google.Internal."), Some(Reason::SsrfMetadata));
    assert_eq!(reason("[fd00:ec2::254]"), Some(Reason::SsrfMetadata));
    assert_eq!(reason("10.0.0.1"), None, "policy decides");
    assert_eq!(reason("localhost.example.com"), None);
}

#[test]
fn families_alternate_beginning_with_ipv6() {
    let addrs = ips(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2"]);
    let order: Vec<String> = dial::interleave(addrs.into_iter().map(|a| SocketAddr::new(a, 1)).collect())
        .iter()
        .map(|a| a.ip().to_string())
        .collect();
    assert_eq!(order, ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3"]);
}

#[tokio::test]
async fn a_dead_address_delays_by_the_head_start_only() {
    let alive = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = closed.local_addr().unwrap();
    drop(closed);
    let good = alive.local_addr().unwrap();
    let stream = dial::race(&[refused, good], std::time::Duration::from_secs(5)).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), good, "a refusal starts the next address at once");
    let error = dial::race(&[refused, refused], std::time::Duration::from_millis(1)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}
