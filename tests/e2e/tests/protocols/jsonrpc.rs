//! JSON-RPC over HTTP by jayson: calls and batches, judged by their methods.

use std::{fs, process::Command};

use stockade_testkit::{Mode, Outer};

use crate::{
    need_packages, need_programs,
    world::{ADDRESS, LONG, World, beside, clients, requests, said},
};

const ENDPOINTS: &str = "
    ledger:
      hosts: [ledger.test]
      @site
      protocol: jsonrpc
      allow: [{methods: [balance.get, balance.list], paths: [/rpc]}]
";

#[test]
fn calls_are_judged_by_method_and_batches_by_every_method() {
    need_programs!("node");
    need_packages!("node-jsonrpc/node_modules/jayson");
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer, &["ledger.test"]);
        let modules = clients().join("node-jsonrpc/node_modules");
        let mut server = Command::new("node");
        let mut server = world.serve(server.arg(beside("ledger.cjs")).arg(ADDRESS).env("NODE_PATH", &modules));
        for mode in Mode::available() {
            let stockade = world.stockade(*mode, ENDPOINTS);
            fs::copy(beside("clerk.cjs"), stockade.work().join("clerk.cjs")).unwrap();
            let run = stockade.sh(&format!("NODE_PATH={} node clerk.cjs", modules.display()));
            for (case, want) in [
                ("rpc_get", r#""ann: 7""#),
                ("rpc_one", r#""bob: 7""#),
                ("rpc_batch", r#"["c: 7",[7,8]]"#),
                ("rpc_after", "[7,8]"),
            ] {
                assert_eq!(said(&run, case), want, "{case} {mode:?} {run:?}");
            }
            for (case, what) in [("rpc_set", "balance.set"), ("rpc_hidden", "balance.get, balance.set")] {
                let text = said(&run, case);
                assert!(text.starts_with("403 "), "{case}: {text} {mode:?} {run:?}");
                assert!(run.text().contains(&format!("covers POST /rpc ({what})")), "{case} {mode:?} {run:?}");
            }
            let seen = ["balance.get", "balance.get", "balance.get", "balance.list", "balance.list"];
            assert_eq!(server.seen(), seen, "{mode:?} {run:?}");
            assert_eq!(requests(&run, "denied"), ["POST /rpc"; 2], "{mode:?} {run:?}");
            assert_eq!(requests(&run, "allowed").len(), 4, "{mode:?} {run:?}");
            assert!(run.stderr.contains("- {methods: [balance.set]"), "{mode:?} {run:?}");
        }
    });
}
