//! Whatever another process does to the fence is noticed (NET-22); `nft` is the saboteur and the second opinion.

use nix::sched::CloneFlags;
use stockade_confine::{
    fence::{self, Drift, FenceError},
    netns,
};
use stockade_test_kernel::net::{Outcome, as_root, at, dial, in_child, run, spec, tool, wall};

const NFT: &str = "/usr/sbin/nft";

#[test]
fn every_change_is_noticed() {
    let changes: &[&[&str]] = &[
        &["flush ruleset"],
        &["delete table inet stockade"],
        &["flush chain inet stockade output"],
        &["flush chain inet stockade prerouting"],
        &["flush table inet stockade"],
        &["insert rule inet stockade output accept"],
        &["add rule inet stockade output accept"],
        &["add rule inet stockade input accept"],
        &["add rule inet stockade forward accept"],
        &["insert rule inet stockade refuse accept"],
        &["add rule inet stockade refuse counter"],
        &["insert rule inet stockade prerouting accept"],
        &["chain inet stockade output { policy accept; }"],
        &["chain inet stockade input { policy accept; }"],
        &["add element inet stockade ports { 22 }"],
        &["delete element inet stockade ports { 443 }"],
        &["add element inet stockade ports { * }"],
        &["flush set inet stockade ports"],
        &["add set inet stockade more { type inet_service; }"],
        &["add chain inet stockade more"],
        &["add counter inet stockade more"],
        &["add table inet more"],
        &["add table ip nat"],
        &["add table ip6 stockade"],
        &["add table netdev stockade"],
        &["add table inet stockade { flags dormant; }"],
    ];
    as_root(move || {
        for change in changes {
            in_child(CloneFlags::CLONE_NEWNET, || {
                let mut fence = wall(&[80, 443]);
                fence.verify().unwrap();
                let Some(output) = tool(NFT, change) else { return };
                let error = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{change:?}: {error}");
                let drift = fence.verify().err();
                println!("{change:?}: {}", drift.as_ref().map_or_else(String::new, Drift::to_string));
                assert!(drift.is_some(), "{change:?} went unnoticed");
            });
        }
    });
}

/// Handles of the rules of a chain; `None` without `nft`.
fn handles(chain: &str) -> Option<Vec<String>> {
    let text = run(NFT, &["-a", "list", "chain", "inet", "stockade", chain])?;
    let rules = text.lines().filter(|l| !l.contains("chain "));
    Some(rules.filter_map(|l| Some(l.rsplit_once(" # handle ")?.1.to_owned())).collect())
}

#[test]
fn every_rule_removed_replaced_or_moved_is_noticed() {
    as_root(|| {
        for (chain, count) in [("output", 8), ("refuse", 4), ("input", 1), ("prerouting", 2)] {
            for at in 0..count {
                for how in ["delete", "replace", "move"] {
                    in_child(CloneFlags::CLONE_NEWNET, || {
                        let mut fence = wall(&[443]);
                        let Some(handles) = handles(chain) else { return };
                        assert_eq!(handles.len(), count, "{chain}");
                        let rule = ["inet", "stockade", chain, "handle", &handles[at]];
                        match how {
                            "replace" => {
                                drop(run(NFT, &[&["replace", "rule"][..], &rule[..], &["accept"][..]].concat()))
                            }
                            "delete" => drop(run(NFT, &[&["delete", "rule"][..], &rule[..]].concat())),
                            // The same rule again, elsewhere: in front, unless it is the first.
                            _ => move_rule(chain, at, &handles),
                        }
                        let drift = fence.verify().err();
                        let same = how == "move" && count == 1;
                        assert_eq!(drift.is_some(), !same, "{how} rule {at} of {chain}: {drift:?}");
                    });
                }
            }
        }
    });
}

/// Deletes a rule and adds one of the same text at the other end of the chain.
fn move_rule(chain: &str, at: usize, handles: &[String]) {
    let text = run(NFT, &["list", "chain", "inet", "stockade", chain]).unwrap();
    let rules: Vec<_> = text.lines().filter(|l| l.contains(" comment ")).collect();
    let verb = if at == 0 { "add" } else { "insert" };
    let batch = format!(
        "delete rule inet stockade {chain} handle {}\n{verb} rule inet stockade {chain} {}\n",
        handles[at], rules[at]
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), batch).unwrap();
    let _ = run(NFT, &["-f", file.path().to_str().unwrap()]);
}

#[test]
fn nft_lists_what_was_meant() {
    as_root(|| {
        let mut fence = wall(&[80, 443]);
        let Some(text) = run(NFT, &["list", "ruleset"]) else { return };
        let lines: Vec<_> = text
            .lines()
            .map(|l| l.split(" comment ").next().unwrap().trim())
            .filter(|l| !l.is_empty() && *l != "}")
            .collect();
        let expected = [
            "table inet stockade {",
            "set ports {",
            "type inet_service",
            "elements = { 80, 443 }",
            "chain refuse {",
            "counter packets 0 bytes 0",
            "limit rate 250/second burst 500 packets log group 5 snaplen 128 queue-threshold 1",
            "meta l4proto tcp reject with tcp reset",
            "reject",
            "chain prerouting {",
            "type filter hook prerouting priority mangle; policy accept;",
            "ip daddr != 127.0.0.0/8 tcp dport @ports tproxy ip to :15001 accept",
            "ip6 daddr != ::1 tcp dport @ports tproxy ip6 to :15001 accept",
            "chain input {",
            "type filter hook input priority filter; policy drop;",
            "iif \"lo\" accept",
            "chain forward {",
            "type filter hook forward priority filter; policy drop;",
            "chain output {",
            "type filter hook output priority filter; policy drop;",
            "oif != \"lo\" goto refuse",
            "tcp dport 15001 goto refuse",
            "ip daddr 127.0.0.0/8 accept",
            "ip6 daddr ::1 accept",
            "ip saddr 127.0.0.0/8 tcp dport @ports accept",
            "ip6 saddr ::1 tcp dport @ports accept",
            "tcp flags rst accept",
            "goto refuse",
        ];
        assert_eq!(lines, expected, "{text}");
        fence.verify().unwrap();
    });
}

#[test]
fn without_rights_over_the_namespace_there_is_no_fence_and_the_error_says_so() {
    as_root(|| {
        assert!(netns::configure().unwrap().is_full());
        stockade_testkit::child::become_user(65_534);
        let error = fence::install(&spec(&[443])).unwrap_err();
        assert!(matches!(&error, FenceError::Unavailable { .. }), "{error:?}");
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
        assert_eq!(dial(at("198.51.100.1", 22)), Outcome::Refused(libc::ECONNREFUSED));
    });
}
