use super::*;

#[tokio::test]
async fn the_hosts_file_answers_and_a_machine_without_servers_says_so() {
    let hosts = b"127.0.0.1 localhost\n# x\n192.0.2.1 A.test b.test # c.test\n2001:db8::1 a.test\nnonsense d.test\n";
    let system = System::from_files(b"search evil.test\n", hosts).unwrap();
    let name = |text: &str| HostName::parse(text).unwrap();
    let a = system.resolve(&name("a.test")).await.unwrap();
    assert_eq!(a, ["192.0.2.1".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
    assert_eq!(system.resolve(&name("b.test")).await.unwrap().len(), 1);
    for absent in ["c.test", "d.test"] {
        assert!(matches!(system.resolve(&name(absent)).await, Err(ResolveError::NoServer)), "{absent}");
    }
}

#[tokio::test]
async fn the_operators_names_may_have_one_label() {
    let system = System::from_files(b"", b"192.0.2.7 Collector collector.test 192.0.2.9 bad_/name\n").unwrap();
    assert_eq!(system.operators("collector").await.unwrap(), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
    assert_eq!(system.operators("collector.test").await.unwrap().len(), 1);
    let local = system.operators("localhost").await.unwrap();
    assert!(local.len() == 2 && local.iter().all(IpAddr::is_loopback), "{local:?}");
    assert!(matches!(system.operators("absent").await, Err(ResolveError::NoServer)));
}
