use super::*;

fn spec(ports: std::ops::Range<u16>) -> Spec {
    Spec { transparent_ports: ports.collect(), private_port: 15_001, group: 5 }
}

#[test]
fn ports_beyond_one_match_take_more_lines_and_no_ports_none() {
    let multiport = |ports, mode| script(&spec(ports), mode, Ip::V4).matches("multiport").count();
    assert_eq!(multiport(100..100, Mode::Tproxy), 0);
    assert_eq!(multiport(100..115, Mode::Tproxy), 2, "before routing and in output");
    assert_eq!(multiport(100..116, Mode::Tproxy), 4);
    assert_eq!(multiport(100..116, Mode::Listeners), 2);
}

#[test]
fn each_family_has_its_own_rules_only() {
    let (v4, v6) = (script(&spec(80..81), Mode::Tproxy, Ip::V4), script(&spec(80..81), Mode::Tproxy, Ip::V6));
    assert!(v4.contains("127.0.0.0/8") && !v4.contains("::"), "{v4}");
    assert!(v6.contains("::1/128") && !v6.contains("127."), "{v6}");
    assert_eq!(v4.lines().count(), v6.lines().count());
}

#[test]
fn comparison_ignores_counters_and_comments_and_nothing_else() {
    let meant = script(&spec(80..81), Mode::Tproxy, Ip::V4);
    let saved = format!("# Generated\n{}# Completed\n", meant.replace("[0:0]", "[7:420]"));
    compare(&meant, &saved).unwrap();
    compare(&meant, &format!("{saved}*nat\n:OUTPUT ACCEPT [1:2]\nCOMMIT\n")).unwrap();
    for (n, line) in meant.lines().enumerate().filter(|(_, l)| *l != "COMMIT") {
        let without: String =
            meant.lines().enumerate().filter(|(i, _)| *i != n).map(|(_, l)| format!("{l}\n")).collect();
        assert!(compare(&meant, &without).is_err(), "without `{line}`");
    }
    for (old, new) in [("-g refuse", "-j refuse"), ("OUTPUT DROP", "OUTPUT ACCEPT"), ("--dports 80", "--dports 80,22")]
    {
        assert!(compare(&meant, &saved.replace(old, new)).is_err(), "{old}");
    }
    let more = format!("{saved}*nat\n:OUTPUT ACCEPT [1:2]\n-A OUTPUT -j ACCEPT\nCOMMIT\n");
    assert!(matches!(compare(&meant, &more), Err(Drift::Foreign(t)) if t.contains("nat")));
    assert!(compare(&meant, &format!("{saved}*raw\n:OUTPUT DROP [1:2]\nCOMMIT\n")).is_err());
}

#[test]
fn a_program_that_fails_is_reported_with_its_own_words() {
    let sh = Program { file: File::open("/bin/sh").unwrap(), name: "sh".to_owned() };
    assert_eq!(sh.run(&["-c", "read x; echo $x; env"], "hello\n").unwrap().lines().next(), Some("hello"));
    let environment = sh.run(&["-c", "echo ${HOME-none} ${PATH_FROM_US-none}"], "").unwrap();
    assert_eq!(environment.trim(), "none none");
    let error = sh.run(&["-c", "echo no such table >&2; exit 3"], "ignored").unwrap_err();
    assert!(error.to_string().contains("no such table"), "{error}");
}
