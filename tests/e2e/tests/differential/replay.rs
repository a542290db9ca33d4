//! Sending a corpus through the sandbox, and without one, and reading what came of it.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use serde_json::{Value, json};
use stockade_testkit::{Events, Mode, Stockade};

use crate::{corpus, frames, origins::Origin};

/// The way that bytes take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// TLS through CONNECT.
    Tunnel,
    /// TLS to the host itself: the transparent door inside, the origin outside.
    Direct,
    /// Plain, to the proxy.
    Proxy,
}

/// What a case came to.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Each answer: the status, and the reason if it is a refusal.
    pub(crate) answers: Vec<(u16, String)>,
    pub(crate) took: Duration,
}

/// Cases on their way.
#[derive(Default)]
pub(crate) struct Replay {
    calls: String,
}

impl Replay {
    /// A case of HTTP/1 to a host of an origin. The host is also its name in the results.
    pub(crate) fn add(&mut self, door: Door, host: &str, text: &str) {
        let at = if door == Door::Proxy { format!("http://{host}") } else { String::new() };
        let text = text.replace('~', &at).replace('^', host);
        let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        self.call(door, host, ("http/1.1", 0), &[(bytes, Duration::ZERO)]);
    }

    /// A CONNECT, and nothing behind it.
    pub(crate) fn add_connect(&mut self, host: &str) {
        let text = format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n");
        let hex: String = text.bytes().map(|b| format!("{b:02x}")).collect();
        let call =
            json!({"id": host, "door": "proxy", "host": host, "port": 80, "tls": null, "send": [[hex, 0]], "quiet": 5});
        self.calls.push_str(&format!("{call}\n"));
    }

    /// All cases of HTTP/1 that a door can take.
    pub(crate) fn add_corpus(&mut self, door: Door, host: &dyn Fn(&str) -> String) {
        for case in cases(door) {
            self.add(door, &host(case.name), case.send);
        }
    }

    /// All cases of HTTP/2.
    pub(crate) fn add_frames(&mut self, door: Door, host: &dyn Fn(&str) -> String) {
        for case in frames::all(host) {
            self.call(door, &host(case.name), ("h2", case.ends), &case.send);
        }
    }

    fn call(&mut self, door: Door, host: &str, (alpn, ends): (&str, usize), send: &[(Vec<u8>, Duration)]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let send: Vec<_> = send.iter().map(|(bytes, pause)| json!([hex(bytes), pause.as_millis() as u64])).collect();
        let (way, port, tls) = match door {
            Door::Tunnel => ("tunnel", 443, json!([alpn])),
            Door::Direct => ("direct", 443, json!([alpn])),
            Door::Proxy => ("proxy", 80, Value::Null),
        };
        let call = json!({
            "id": host, "door": way, "host": host, "port": port, "tls": tls, "send": send, "ends": ends,
            // A server of HTTP/2 says something at once, and the answer later.
            "quiet": if ends > 0 { 1500 } else { 250 },
        });
        self.calls.push_str(&format!("{call}\n"));
    }

    /// Makes the calls inside a sandbox. Hosts whose origins are trusted by `ca`.
    #[track_caller]
    pub(crate) fn inside(self, mode: Mode, policy: &str, ca: &Path) -> (BTreeMap<String, Told>, Events) {
        let stockade = Stockade::new(mode).policy(policy).arg("--upstream-ca").arg(ca);
        self.made(stockade)
    }

    /// Makes them outside.
    #[track_caller]
    pub(crate) fn outside(self, ca: &Path) -> BTreeMap<String, Told> {
        self.made(Stockade::new(Mode::Rootless).unwrapped().env("SSL_CERT_FILE", ca)).0
    }

    #[track_caller]
    fn made(self, stockade: Stockade) -> (BTreeMap<String, Told>, Events) {
        let (caller, calls) = (stockade.put("caller"), stockade.work().join("calls"));
        fs::write(&calls, &self.calls).unwrap();
        let run = stockade.timeout(Duration::from_secs(80)).run(&[&caller, &calls]).expect_code(0);
        let told: BTreeMap<_, _> = run.text().lines().map(result).collect();
        assert_eq!(told.len(), self.calls.lines().count(), "each case has a name of its own, and a result");
        (told, run.events.clone())
    }
}

/// The cases that a door can take.
pub(crate) fn cases(door: Door) -> impl Iterator<Item = &'static corpus::Case> {
    let inside = door != Door::Proxy;
    corpus::all().filter(move |case| inside || !corpus::INSIDE.iter().any(|c| c.name == case.name))
}

fn result(line: &str) -> (String, Told) {
    let value: Value = serde_json::from_str(line).unwrap();
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let hex = text("answer");
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let answers = answers(&String::from_utf8_lossy(&bytes));
    (text("id"), Told { answers, took: Duration::from_millis(value["ms"].as_u64().unwrap()) })
}

/// The answers of an HTTP/1 connection. What does not look like one ends the list.
fn answers(mut text: &str) -> Vec<(u16, String)> {
    let mut all = Vec::new();
    while let Some((head, rest)) = text.split_once("\r\n\r\n") {
        let status = head.strip_prefix("HTTP/1.").and_then(|h| h.get(2..5)?.parse::<u16>().ok());
        let Some(status) = status else { break };
        let field = |name: &str| {
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix(name).map(|v| v.trim().to_owned()))
        };
        let (body, left) = match (field("content-length:"), field("transfer-encoding:")) {
            // Without a body: the answer to HEAD, which says how long it would be.
            (Some(n), _) if rest.len() < n.parse().unwrap_or(0) => ("", rest),
            (Some(n), _) => rest.split_at(n.parse().unwrap_or(0)),
            (None, Some(_)) => rest.split_once("0\r\n\r\n").unwrap_or((rest, "")),
            (None, None) => ("", rest),
        };
        text = left;
        if status >= 200 || status == 101 {
            let reason = serde_json::from_str::<Value>(body).ok().and_then(|v| Some(v["reason"].as_str()?.to_owned()));
            all.push((status, reason.unwrap_or_default()));
        }
        if status == 101 {
            break;
        }
    }
    all
}

/// What a policy says of the origins: `NAME.test` with rules, `free-NAME.test` without.
pub(crate) fn policy(origins: &[Origin]) -> String {
    let mut text = "version: 1\nnetwork:\n  endpoints:\n".to_owned();
    for Origin { name, .. } in origins {
        text += &format!(
            "    {name}:
      hosts: ['*.{name}.test']
      ports: [80, 443]
      private_addresses: [192.0.2.0/24]
      allow: [{{methods: [GET, HEAD, POST, PUT, OPTIONS], paths: ['/public/**']}}]
      deny: [{{paths: ['/public/secret/**']}}]
    free-{name}: {{hosts: ['*.free-{name}.test'], ports: [80, 443], private_addresses: [192.0.2.0/24]}}
"
        );
    }
    text
}
