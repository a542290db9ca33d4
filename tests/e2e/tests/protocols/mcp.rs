//! The Model Context Protocol by its official SDKs, over Streamable HTTP: judged by method, tool and argument.

use std::{fs, process::Command};

use stockade_testkit::{Finished, Mode, Outer};

use crate::{
    need_packages, need_programs,
    world::{ADDRESS, LONG, Server, World, beside, clients, requests, said},
};

const ENDPOINTS: &str = "
    tools:
      hosts: [tools.test]
      @site
      protocol: mcp
      allow:
        - {methods: [initialize, 'notifications/*', tools/list, stream, delete]}
        - {methods: [tools/call], tools: [read_file], arguments: {path: '/data/*'}}
        - {methods: [tools/call], tools: [count, poke]}
";

/// Runs a client's program in every mode.
fn session(script: &str, client: &str, check: impl Fn(Mode, &Finished, Vec<String>)) {
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer, &["tools.test"]);
        let modules = clients().join("node-mcp/node_modules");
        let mut server = Command::new("node");
        let mut server: Server = world.serve(server.arg(beside("tools.cjs")).arg(ADDRESS).env("NODE_PATH", &modules));
        for mode in Mode::available() {
            let stockade = world.stockade(*mode, ENDPOINTS);
            fs::copy(beside(client), stockade.work().join(client)).unwrap();
            let run = stockade.sh(&format!("CLIENTS={}\n{script}", clients().display()));
            check(*mode, &run, server.seen());
        }
    });
}

const OUTSIDE: &str = "{methods: [tools/call], tools: [read_file], arguments: {path: [/etc/passwd]}}";

#[test]
fn the_sdk_of_javascript() {
    need_programs!("node");
    need_packages!("node-mcp/node_modules/@modelcontextprotocol/sdk");
    session("NODE_PATH=$CLIENTS/node-mcp/node_modules node agent.cjs", "agent.cjs", |mode, run, seen| {
        for (case, want) in [
            ("list", "read_file delete_file count poke"),
            ("read", "contents of /data/a"),
            ("count", "counted to 3 after 1,2,3"),
            ("poke", "poked"),
            ("changed", "notifications/tools/list_changed"),
            ("again", "contents of /data/b"),
            ("end", "ended"),
        ] {
            assert_eq!(said(run, case), want, "{case} {mode:?} {run:?}");
        }
        for (case, why) in [
            ("outside", "`allow[1]` does, but for its argument `path`"),
            ("delete", "no rule in `allow` of endpoint `tools` covers POST /mcp (tools/call delete_file)"),
            ("resources", "no rule in `allow` of endpoint `tools` covers POST /mcp (resources/list)"),
        ] {
            let text = said(run, case);
            assert!(text.contains("denied by stockade") && text.contains(why), "{case}: {text} {mode:?} {run:?}");
        }
        assert!(seen.contains(&"GET".to_owned()) && seen.contains(&"DELETE".to_owned()), "{mode:?} {seen:?}");
        let calls: Vec<_> = seen.iter().filter_map(|line| line.strip_prefix("POST tools/call ")).collect();
        let read = |path: &str| format!(r#"read_file {{"path":"{path}"}}"#);
        let want = [&*read("/data/a"), r#"count {"to":3}"#, "poke {}", &*read("/data/b")];
        assert_eq!(calls, want, "{mode:?} {seen:?}");
        assert!(!seen.iter().any(|line| line.contains("resources/list")), "{mode:?} {seen:?}");
        assert_eq!(requests(run, "denied"), ["POST /mcp"; 3], "{mode:?} {run:?}");
        assert_eq!(requests(run, "allowed").len(), seen.len(), "{mode:?} {run:?} {seen:?}");
        assert!(run.stderr.contains(OUTSIDE), "{mode:?} {run:?}");
        assert!(run.stderr.contains("{methods: [tools/call], tools: [delete_file]}"), "{mode:?} {run:?}");
    });
}

#[test]
fn the_sdk_of_python() {
    need_programs!("node", "python3");
    need_packages!("node-mcp/node_modules/@modelcontextprotocol/sdk", "python-mcp/mcp");
    session("PYTHONPATH=$CLIENTS/python-mcp python3 agent.py", "agent.py", |mode, run, seen| {
        assert_eq!(said(run, "py_read"), "contents of /data/a", "{mode:?} {run:?}");
        let refused = said(run, "py_outside");
        assert!(refused.contains("403"), "{refused} {mode:?} {run:?}");
        assert!(seen.iter().any(|line| line.contains("/data/a")), "{mode:?} {seen:?}");
        assert!(!seen.iter().any(|line| line.contains("/etc/passwd")), "{mode:?} {seen:?}");
        assert_eq!(requests(run, "denied"), ["POST /mcp"], "{mode:?} {run:?}");
        assert!(run.stderr.contains(OUTSIDE), "{mode:?} {run:?}");
    });
}
