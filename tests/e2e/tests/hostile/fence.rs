//! NET: the tools that change a network, tried on this one.

use stockade_testkit::{Arena, Mode, Outer, Stockade, upstream::Tcp};

const POLICY: &str = "
version: 1
network:
  endpoints:
    site: {hosts: [up.test], ports: [80], private_addresses: [192.0.2.0/24]}
";

/// Each tool as the command is, and as root of namespaces of its own.
const TOOLS: &str = r#"
    try() { "$@" >/dev/null 2>&1 && echo "did $*" || echo "no $*"; }
    for ns in '' 'unshare -Urn'; do
        try $ns nft add table inet mine; try $ns nft flush ruleset
        try $ns iptables -t nat -F; try $ns ip6tables -F
        try $ns ip link add mine type dummy; try $ns ip addr add 10.9.8.7/32 dev lo
        try $ns ip route add blackhole 192.0.2.99; try $ns ip route flush table local; try $ns ip rule add from all table 7
        try $ns ip link set lo netns 1; try $ns sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
        try $ns nsenter -t 1 -n true
    done
    try unshare -n true; try unshare -U true; try unshare -Urnm true"#;

/// NET-11: nothing about the fence and the routes can be changed, nor a network be had that has none.
#[test]
fn no_tool_changes_the_fence() {
    Outer::run(|_| {
        let sink = Tcp::sink("198.51.100.1:22");
        let arena = Arena::new(POLICY, "up.test");
        for mode in Mode::available() {
            let stockade = arena.stockade(*mode);
            stockade.put_probe();
            let after =
                "./probe tcp:198.51.100.1:22; unshare -Urn ./probe tcp:198.51.100.1:22; curl -sS http://up.test/";
            let run = stockade.sh(&format!("{TOOLS}\n{after}"));
            let text = run.text();
            assert_eq!(text.lines().filter(|l| l.starts_with("no ")).count(), 27, "{mode:?} {run:?}");
            assert!(!text.contains("did "), "{mode:?} {run:?}");
            let tried: Vec<&str> = text.lines().filter(|l| l.starts_with("tcp:")).collect();
            assert!(matches!(tried[..], [line] if line.contains("-> ECONNREFUSED")), "{mode:?} {run:?}");
            assert!(text.ends_with("hello from upstream\n"), "control: the door is there still: {mode:?} {run:?}");
            assert_eq!(run.events.one("bypass").port(), Some(22), "{mode:?}");
            assert_eq!(run.events.refusals(), 1, "{mode:?} {run:?}");
        }
        sink.counters.assert_untouched();
        let allowed = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
        let bare = Stockade::new(Mode::Rootless).unwrapped().sh(TOOLS);
        let did = bare.text().lines().filter(|l| l.starts_with("did unshare -Ur")).count();
        assert!(allowed.trim() == "0" || did >= 5, "tripwire: without Stockade the tools work there: {bare:?}");
    });
}
