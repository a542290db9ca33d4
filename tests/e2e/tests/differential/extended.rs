//! WebSockets over HTTP/2 (RFC 8441), by Node on both sides: the client speaks HTTP/2, the origin HTTP/1.1.

use std::fs;

use stockade_testkit::{Mode, Outer, Stockade, outer::RESOLVER, skip, upstream::Dns};

use crate::origins::{self, SOURCES};

/// What only the origin may see: in a field, and in a message.
const VALUE: &str = "tok_R3aLvAlUe7Hq2LmVt9ZxWb4KdRs1E";
const WORD: &str = "wrd_cAnArY0f7Hq2LmVt9ZxWb4KdRs1Ey";

const POLICY: &str = r#"
version: 1
network:
  endpoints:
    chat:
      hosts: [chat.test]
      ports: [443]
      private_addresses: [192.0.2.0/24]
      allow: [{methods: [GET], paths: [/chat]}]
      credentials: [token, word]
    rpc:
      hosts: [rpc.test]
      ports: [443]
      protocol: jsonrpc
      private_addresses: [192.0.2.0/24]
      allow: [{methods: ["get*"]}]
credentials:
  token: {env: TOKEN, source: env:REAL, inject: {header: authorization, value: "Bearer {secret}"}}
  word: {env: WORD, source: env:SAID, inject: {body: json, field: /text}}
"#;

#[test]
fn a_websocket_over_http2_is_judged_and_dressed_as_any_other() {
    Outer::run(|outer| {
        let (chat, ca) = match origins::chat(outer, &["chat.test", "rpc.test"]) {
            Ok(started) => started,
            Err(why) => skip!("no chat: {why}"),
        };
        let dns = Dns::start((RESOLVER, 53));
        dns.host("chat.test", chat.addr);
        dns.host("rpc.test", chat.addr);
        for mode in Mode::available() {
            let before = chat.lines().len();
            let stockade =
                Stockade::new(*mode).policy(POLICY).arg("--upstream-ca").arg(&ca).env("REAL", VALUE).env("SAID", WORD);
            let client = stockade.work().join("client.js");
            fs::copy(format!("{SOURCES}/chat-client.js"), &client).unwrap();
            let call = |method: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
            let run = stockade.sh(&format!(
                "node client.js https://chat.test +/chat hello \"{{\\\"text\\\":\\\"$WORD\\\"}}\" \\
                     +/private '!connect-udp' +/chat again
                 echo rpc; env -u TOKEN node client.js https://rpc.test +/ '{}' '{}'",
                call("getBlock"),
                call("sendAll"),
            ));
            let text = run.text();
            let told: Vec<&str> = text.lines().map(|l| l.split("xxxx").next().unwrap_or_default()).collect();
            let (get, closed) = (format!("heard {}", call("getBlock")), "heard closed 1008 ");
            let want = [
                "offered true",
                "/chat websocket 200",
                "heard hello",
                "heard {\"text\":\"",
                "/private websocket 403",
                "/chat connect-udp 403",
                "/chat websocket 200",
                "heard again",
                "rpc",
                "offered true",
                "/ websocket 200",
                &get,
            ];
            assert_eq!(told[..want.len().min(told.len())], want, "{mode:?} {run:?}");
            assert!(told[want.len()].starts_with(closed), "{mode:?} {run:?}");
            assert!(
                !text.contains(VALUE) && !text.contains(WORD),
                "the command never sees the value: {mode:?} {run:?}"
            );
            let seen = chat.lines().split_off(before);
            let dressed = format!("socket GET /chat HTTP/1.1 Bearer {VALUE}");
            let said = format!("message {{\"text\":\"{WORD}\"}}");
            let block = format!("message {}", call("getBlock"));
            let want = [&*dressed, "message hello", &said, &dressed, "message again"];
            assert_eq!(seen[..5], want, "{mode:?} {run:?}");
            assert_eq!(seen[5..], ["socket GET / HTTP/1.1 undefined", &block], "and nothing else: {mode:?}");
            run.events.one("upgrade");
            assert_eq!(run.events.refusals(), 3, "the path, the protocol and the message: {mode:?} {run:?}");
        }
    });
}
