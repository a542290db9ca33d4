//! HTTP and DOS: requests that mean something else than they seem to, and bodies that are hard to read.

use std::{
    io::{Read, Write},
    sync::{Arc, Mutex},
};

use stockade_testkit::{Arena, Finished, Mode, Outer, upstream::Tcp};

use crate::ask::{answer, each_answered, post, told};

/// All of these names lead to the arena's origin; `free.corp.test` has no rules.
const POLICY: &str = r#"
version: 1
network:
  endpoints:
    free: {hosts: ['*.corp.test'], ports: [80], private_addresses: [192.0.2.0/24]}
    query:
      hosts: [query.corp.test]
      ports: [80]
      private_addresses: [192.0.2.0/24]
      allow: [{methods: [GET], paths: [/list], query: {per_page: "1*"}}]
    path: {hosts: [path.corp.test], ports: [80], private_addresses: [192.0.2.0/24], allow: [{paths: [/open]}]}
    gql:
      hosts: [gql.corp.test]
      ports: [80]
      protocol: graphql
      private_addresses: [192.0.2.0/24]
      allow: [{operations: [query], fields: [user, repository]}]
    rpc:
      hosts: [rpc.corp.test]
      ports: [80]
      protocol: jsonrpc
      private_addresses: [192.0.2.0/24]
      allow: [{methods: ["get*"]}]
    mcp:
      hosts: [mcp.corp.test]
      ports: [80]
      protocol: mcp
      private_addresses: [192.0.2.0/24]
      allow: [{methods: [tools/call], tools: [read_file]}, {methods: [tools/list]}]
"#;

const NAMES: [&str; 6] = ["free", "query", "path", "gql", "rpc", "mcp"];

fn world() -> Arena {
    let arena = Arena::new(POLICY, "up.corp.test");
    NAMES.iter().for_each(|name| arena.dns.host(&format!("{name}.corp.test"), "192.0.2.10"));
    arena
}

/// The same tries to the host without rules.
fn to_free<'a>(tries: impl Iterator<Item = &'a String>) -> Vec<String> {
    let free = |attempt: &String| {
        NAMES.iter().fold(attempt.clone(), |text, name| text.replace(&format!("{name}.corp.test"), "free.corp.test"))
    };
    tries.map(free).collect()
}

#[track_caller]
fn all_pass(run: &Finished, tries: &[String], why: &str) {
    for attempt in tries {
        assert_eq!(answer(run, attempt).0, 200, "{why}: {attempt} {run:?}");
    }
}

/// HTTP-11: every value of a parameter must fit, however it is written.
#[test]
fn queries_are_judged_value_by_value() {
    let get = |query: &str| {
        format!(
            "proxy:GET http://query.corp.test/list{query} HTTP/1.1\\r\\nHost: query.corp.test\\r\\nConnection: close\\r\\n\\r\\n"
        )
    };
    let refused = [
        ("?per_page=99", 403, "l7"),
        ("?per_page=10&per_page=99", 403, "l7"),
        ("?per_page=99&per_page=10", 403, "l7"),
        ("?per_page=", 403, "l7"),
        ("?per_page", 403, "l7"),
        ("?&&per_page=99", 403, "l7"),
        ("?per%5Fpage=99", 403, "l7"),
        ("?per_page=%39%39", 403, "l7"),
        ("?per_page=+10", 403, "l7"),
        ("?per_page=10;per_page=99", 400, "path"),
        ("?a=b;per_page=99", 400, "path"),
        ("?per_page=%zz", 400, "path"),
        ("?per_page=1%", 400, "path"),
        ("?per_page=1%00", 400, "path"),
        ("?per_page=1%ff", 400, "path"),
    ];
    let wanted: Vec<(String, u16, &str)> = refused.map(|(q, status, reason)| (get(q), status, reason)).to_vec();
    let tries: Vec<String> = wanted.iter().map(|(t, ..)| t.clone()).collect();
    Outer::run(move |_| {
        let arena = world();
        arena.run(&tries, |mode, run| each_answered(run, &wanted, &format!("{mode:?}")));
        let good = ["", "?per_page=10", "?per_page=%31%30", "?per_page=1+0", "?per_page=1%200&other=x"].map(get);
        for mode in Mode::available() {
            let before = arena.site.requests().len();
            all_pass(&arena.stockade(*mode).probe(&good), &good, "control");
            let seen: Vec<String> =
                arena.site.requests()[before..].iter().map(|r| r.target().trim_start_matches("/list").into()).collect();
            let sent = ["", "?per_page=10", "?per_page=10", "?per_page=1%200", "?per_page=1%200&other=x"];
            assert_eq!(seen, sent, "what was judged is what is sent: {mode:?}");
        }
        let readable: Vec<String> = to_free(tries[..9].iter());
        all_pass(&arena.stockade(Mode::Rootless).probe(&readable), &readable, "tripwire: without the rule");
        let direct: Vec<String> = tries.iter().map(|t| t.replacen("proxy:", "say:192.0.2.10:80:", 1)).collect();
        all_pass(&arena.unwrapped(&direct), &direct, "tripwire: without Stockade");
    });
}

/// HTTP-14: what was announced as a body is one, whatever the origin answers and when.
#[test]
fn a_body_is_never_read_as_a_request() {
    let inner = |host: &str| format!("GET http://{host}/smuggled HTTP/1.1\\r\\nHost: {host}\\r\\nX: y\\r\\n\\r\\n");
    let body = inner("up.corp.test");
    let length = body.replace("\\r\\n", "..").len();
    let request = |method: &str, host: &str, fields: &str| {
        format!("proxy:{method} http://{host}/open HTTP/1.1\\r\\nHost: {host}\\r\\n{fields}\\r\\n{body}")
    };
    let framed = format!("Content-Length: {length}\\r\\n");
    let tries = [
        request("POST", "free.corp.test", &format!("Expect: 100-continue\\r\\n{framed}")),
        request("POST", "free.corp.test", &format!("{framed}Expect: 100-Continue\\r\\nExpect: 100-continue\\r\\n")),
        request("POST", "free.corp.test", &format!("Expect: 200-maybe\\r\\n{framed}")),
        request("GET", "free.corp.test", &framed),
        request("DELETE", "free.corp.test", &framed),
        request("POST", "early.corp.test", &format!("Expect: 100-continue\\r\\n{framed}")),
        request("POST", "early.corp.test", &framed),
        request("POST", "path.corp.test", &format!("Expect: 100-continue\\r\\n{framed}")).replace("/open", "/closed"),
        request("POST", "path.corp.test", &framed).replace("/open", "/closed"),
    ];
    Outer::run(move |_| {
        let arena = world();
        arena.dns.host("early.corp.test", "192.0.2.11");
        // Says no after the head, and goes on to the next request behind the body that was announced.
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let told_heads = Arc::clone(&heads);
        let _early = Tcp::serve("192.0.2.11:80", move |mut stream| {
            loop {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte)?;
                    head.push(byte[0]);
                }
                told_heads.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
                stream.write_all(b"HTTP/1.1 403 Early\r\nContent-Length: 0\r\n\r\n")?;
                stream.read_exact(&mut vec![0; length])?;
            }
        });
        for mode in Mode::available() {
            let before = arena.site.requests().len();
            let run = arena.stockade(*mode).probe(&tries);
            let seen = arena.site.requests().split_off(before);
            for attempt in &tries[..2] {
                let what = run.outcome(attempt).what;
                assert!(what.contains("hello from upstream"), "control: {mode:?} {attempt} {what}");
            }
            assert!(seen.iter().all(|r| r.target() == "/open"), "{mode:?} {seen:?} {run:?}");
            assert!(seen.iter().all(|r| r.body.len() == length), "a body whole: {mode:?} {seen:?} {run:?}");
            for attempt in &tries[5..7] {
                assert_eq!(answer(&run, attempt).0, 403, "{mode:?} {attempt} {run:?}");
            }
            assert_eq!(told(&run, "l7"), 2, "the denied ones, once each: {mode:?} {run:?}");
            for event in run.events.iter().filter(|e| e.class() != 1007) {
                assert!(!event.0.to_string().contains("smuggled"), "judged as a request: {mode:?} {event:?}");
            }
        }
        let heads = heads.lock().unwrap().clone();
        assert_eq!(heads.len(), 2 * Mode::available().len(), "{heads:?}");
        assert!(heads.iter().all(|h| h.starts_with("POST /open ")), "{heads:?}");
        // Announced as none, the same bytes are the next request.
        let split = request("POST", "free.corp.test", "Content-Length: 0\\r\\n");
        let before = arena.site.requests().len();
        let run = arena.stockade(Mode::Rootless).probe(&[&split]);
        let seen = arena.site.requests().split_off(before);
        assert!(seen.iter().any(|r| r.target() == "/smuggled"), "tripwire: {seen:?} {run:?}");
    });
}

/// HTTP-19: every part of a message must be allowed, and readable in one way.
#[test]
fn messages_are_judged_part_by_part() {
    let json = "Content-Type: application/json\\r\\n";
    let to = |host: &str, body: &str| post(&format!("http://{host}.corp.test/"), json, body);
    let gql = |query: &str| to("gql", &format!("{{\"query\":\"{query}\"}}"));
    let call = |method: &str| format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\"}}");
    let tool = |name: &str| {
        to(
            "mcp",
            &format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"{name}\"}}}}"),
        )
    };
    let refused = vec![
        gql("{ user: deleteUser }"),
        gql("{ user secrets }"),
        gql("{ ...F } fragment F on Query { secrets }"),
        gql("{ ... on Query { secrets } }"),
        gql("mutation { user }"),
        gql("{ user"),
        to("gql", "[{\"query\":\"{user}\"},{\"query\":\"mutation{deleteUser}\"}]"),
        to("gql", "{\"query\":\"{user} mutation M{deleteUser}\",\"operationName\":\"M\"}"),
        to("gql", "{\"query\":\"{user}\",\"query\":\"mutation{deleteUser}\"}"),
        to("gql", "{\"query\":\"{user}\",\"Query\":\"mutation{deleteUser}\"}"),
        to("gql", "{\"extensions\":{\"persistedQuery\":{\"version\":1,\"sha256Hash\":\"aa\"}}}"),
        to("gql", "{\"id\":\"stored\",\"query\":\"{user}\"}"),
        to("rpc", &call("sendAll")),
        to("rpc", &format!("[{},{}]", call("getX"), call("sendAll"))),
        to("rpc", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"getX\",\"method\":\"sendAll\"}"),
        to("rpc", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"getX\",\"Method\":\"sendAll\"}"),
        to("rpc", "{\"jsonrpc\":\"2.0\",\"method\":\"sendAll\"}"),
        to("rpc", &"[".repeat(10_000)),
        to(
            "rpc",
            &format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"getX\",\"params\":{}{}}}",
                "[".repeat(10_000),
                "]".repeat(10_000)
            ),
        ),
        to("rpc", "not json"),
        tool("delete_file"),
        tool("READ_FILE"),
        tool(" read_file"),
        tool("read_file\\u0000"),
        tool("read_file\\u200b"),
        tool("rеad_file"),
        to(
            "mcp",
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"read_file\",\"name\":\"delete_file\"}}",
        ),
        to("mcp", &call("resources/list")),
    ];
    let good = [
        gql("{ user repository }"),
        gql("{ mine: user }"),
        to("rpc", &call("getX")),
        tool("read_file"),
        to("mcp", &call("tools/list")),
    ];
    let wanted: Vec<(String, u16, &str)> = refused.iter().map(|t| (t.clone(), 403, "l7")).collect();
    Outer::run(move |_| {
        let arena = world();
        arena.run(&refused, |mode, run| each_answered(run, &wanted, &format!("{mode:?}")));
        for mode in Mode::available() {
            all_pass(&arena.stockade(*mode).probe(&good), &good, "control");
        }
        let free = to_free(refused.iter());
        all_pass(&arena.stockade(Mode::Rootless).probe(&free), &free, "tripwire: without the rules");
    });
}

/// HTTP-20, DOS-06: a body in a coding is decoded within a bound, or refused.
#[test]
fn bodies_in_a_coding_are_read_or_refused() {
    let script = r#"
        t() { name=$1 coding=$2 file=$3
            code=$(curl -s -m 20 -o out -w '%{http_code}' -H 'content-type: application/json' ${coding:+-H "content-encoding: $coding"} \
                --data-binary @$file http://HOST.corp.test/)
            echo "$name $code $(grep -o '"reason":"[a-z0-9_]*"' out | cut -d'"' -f4)"; }
        printf '{"jsonrpc":"2.0","id":1,"method":"getX"}' > good; printf '{"jsonrpc":"2.0","id":1,"method":"sendAll"}' > bad
        gzip -k good; gzip -k bad; gzip < good.gz > twice; cat good.gz bad.gz > two; (cat good.gz; echo x) > tail
        head -c 20 good.gz > cut; (printf '{"jsonrpc":"2.0","id":1,"method":"getX","params":["'; head -c 64000000 /dev/zero | tr '\0' a; printf '"]}') | gzip > bomb
        t plain '' good; t identity identity good; t gzip gzip good.gz
        t hidden gzip bad.gz; t unlabelled '' bad.gz; t inner gzip twice
        t wrong gzip good; t two gzip two; t tail gzip tail; t cut gzip cut
        t br br good.gz; t zstd zstd good.gz; t deflate deflate good.gz; t twice 'gzip, gzip' twice; t odd 'gzip;q=1' good.gz
        t bomb gzip bomb"#;
    let want = "plain 200 \nidentity 200 \ngzip 200 \nhidden 403 l7\nunlabelled 403 l7\ninner 403 l7\n\
        wrong 403 uninspectable\ntwo 403 uninspectable\ntail 403 uninspectable\ncut 403 uninspectable\n\
        br 403 uninspectable\nzstd 403 uninspectable\ndeflate 403 uninspectable\ntwice 403 uninspectable\nodd 403 uninspectable\n\
        bomb 413 limit\n";
    Outer::run(move |_| {
        let arena = world();
        for mode in Mode::available() {
            let before = arena.site.requests().len();
            let run = arena.stockade(*mode).sh(&script.replace("HOST", "rpc"));
            assert_eq!(run.text(), want, "{mode:?} {run:?}");
            assert_eq!(arena.site.requests().len(), before + 3, "only the three controls arrived: {mode:?}");
            let of = ["l7", "uninspectable", "limit"].map(|reason| told(&run, reason));
            assert_eq!(of, [3, 9, 1], "{mode:?} {run:?}");
        }
        let before = arena.site.requests().len();
        let run = arena.stockade(Mode::Rootless).sh(&script.replace("HOST", "free"));
        assert_eq!(run.text().matches(" 200 ").count(), 16, "tripwire: where nothing is read all pass: {run:?}");
        assert_eq!(arena.site.requests().len(), before + 16);
    });
}

/// DOS-06: messages that are compressed would have to be decompressed, so no extension is spoken.
#[test]
fn compression_of_messages_is_never_agreed() {
    const ACCEPT: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    let accepting = |addr: &str, more: &'static str| {
        Tcp::serve((addr, 80), move |mut stream| {
            let mut head = [0; 2048];
            let _ = stream.read(&mut head)?;
            stream.write_all(format!("{ACCEPT}{more}\r\n").as_bytes())?;
            std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
        })
    };
    let socket = |host: &str| {
        format!(
            "proxy:GET http://{host}/ HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\
             Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\
             Sec-WebSocket-Extensions: permessage-deflate\\r\\n\\r\\n"
        )
    };
    Outer::run(move |_| {
        let arena = world();
        arena.dns.host("plain.corp.test", "192.0.2.11");
        arena.dns.host("deflate.corp.test", "192.0.2.12");
        let plain = accepting("192.0.2.11", "");
        let deflate = accepting("192.0.2.12", "Sec-WebSocket-Extensions: permessage-deflate\r\n");
        let (good, bad) = (socket("plain.corp.test"), socket("deflate.corp.test"));
        arena.run(&[&good, &bad], |mode, run| {
            assert_eq!(answer(run, &good).0, 101, "control: {mode:?} {run:?}");
            assert_eq!(answer(run, &bad), (502, "upgrade".to_owned()), "{mode:?} {run:?}");
            run.events.one("upgrade");
        });
        for head in plain.first_bytes().iter().chain(&deflate.first_bytes()) {
            let head = String::from_utf8_lossy(head).to_ascii_lowercase();
            assert!(head.contains("sec-websocket-key") && !head.contains("extensions"), "not offered: {head}");
        }
        let direct = arena.unwrapped(&[good.replacen("proxy:", "say:192.0.2.12:80:", 1)]);
        assert!(direct.text().contains("101 Switching"), "tripwire: {direct:?}");
        let last = deflate.first_bytes().pop().unwrap();
        assert!(String::from_utf8_lossy(&last).contains("permessage-deflate"), "tripwire: it is offered");
    });
}
