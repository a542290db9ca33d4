//! A WebSocket chat by `websockets`: rooms by path, and messages by their JSON-RPC method.

use std::{fs, process::Command};

use stockade_testkit::{Mode, Outer};

use crate::{
    need_packages, need_programs,
    world::{ADDRESS, LONG, World, beside, clients, requests, said},
};

const ENDPOINTS: &str = "
    chat:
      hosts: [chat.test]
      @site
      allow: [{methods: [GET], paths: [/rooms/open]}]
    rpc:
      hosts: [rpc.test]
      @site
      protocol: jsonrpc
      allow: [{methods: [say]}]
";

#[test]
fn rooms_are_judged_by_path_and_messages_by_method() {
    need_programs!("python3");
    need_packages!("python-websockets/websockets");
    Outer::run_within(LONG, |outer| {
        let world = World::start(outer, &["chat.test", "rpc.test"]);
        let python = clients().join("python-websockets");
        let mut server = Command::new("/usr/bin/python3");
        let mut server = world.serve(server.arg(beside("chat_server.py")).arg(ADDRESS).env("PYTHONPATH", &python));
        for mode in Mode::available() {
            let stockade = world.stockade(*mode, ENDPOINTS);
            fs::copy(beside("chat_client.py"), stockade.work().join("chat_client.py")).unwrap();
            let run = stockade.sh(&format!("PYTHONPATH={} python3 chat_client.py", python.display()));
            let say = r#"{"jsonrpc": "2.0", "id": 1, "method": "say"}"#;
            assert_eq!(said(&run, "heard"), "hello bob", "{mode:?} {run:?}");
            assert_eq!(said(&run, "echo"), "hello bob, 70000", "{mode:?} {run:?}");
            assert_eq!(said(&run, "say"), say, "{mode:?} {run:?}");
            let closed = said(&run, "closed");
            assert!(
                closed.contains("HTTP 403 no rule in `allow` of endpoint `chat` covers"),
                "{closed} {mode:?} {run:?}"
            );
            let kick = said(&run, "kick");
            assert!(kick.contains("1008") && kick.contains("covers GET / (kick)"), "{kick} {mode:?} {run:?}");
            let seen = server.seen();
            let want = ["joined /rooms/open", "joined /rooms/open", "hello bob", &"x".repeat(70_000), "joined /", say];
            assert_eq!(seen, want, "{mode:?}");
            let denied = run.events.iter().filter(|e| e.action() == Some("denied"));
            let denied: Vec<_> = denied.map(|e| (e.host().unwrap_or_default(), e.reason())).collect();
            assert_eq!(denied, [("chat.test", Some("l7")), ("rpc.test", Some("l7"))], "{mode:?} {run:?}");
            assert_eq!(requests(&run, "allowed").len(), 3, "{mode:?} {run:?}");
            assert!(run.stderr.contains("{methods: [GET], paths: [/rooms/closed]}"), "{mode:?} {run:?}");
            assert!(run.stderr.contains("- {methods: [kick]}"), "{mode:?} {run:?}");
        }
    });
}
