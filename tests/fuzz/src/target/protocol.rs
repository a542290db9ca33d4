//! Bodies that rules read.

use std::mem::discriminant;

use stockade_l7::{
    Operation, Reading, Slashes, Target, Unreadable, message,
    protocol::{Head, Kind, MAX_BODY, reader},
};

use super::signature;

pub(super) const JSON: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\"",
    b"\\",
    b"\\u0061",
    b"\\ud800",
    b"null",
    b"true",
    b"1e400",
    b"-0.0",
    b"5.0",
    b"\"jsonrpc\":\"2.0\"",
    b"\"id\":1",
    b"\"method\":",
    b"\"Method\":",
    b"\"params\":",
    b"\"result\":{}",
    b"\"error\":",
    b"\"tools/call\"",
    b"\"resources/read\"",
    b"\"prompts/get\"",
    b"\"completion/complete\"",
    b"\"name\":",
    b"\"uri\":",
    b"\"ref\":",
    b"\"arguments\":",
    b"\"a.b\":",
    b"\"response\"",
    b"\xef\xbb\xbf",
    b"\xc5\xbf",
    b"\0",
];

pub(super) const GRAPHQL: &[&[u8]] = &[
    b"{",
    b"}",
    b"(",
    b")",
    b"[",
    b"]",
    b":",
    b"$",
    b"@",
    b"!",
    b"=",
    b"...",
    b"...on Q{",
    b"#",
    b"\n",
    b"\r",
    b"\"",
    b"\"\"\"",
    b"\\\"\"\"",
    b"\\",
    b"\\u0041",
    b"query ",
    b"mutation ",
    b"subscription ",
    b"fragment ",
    b"on ",
    b"a:",
    b"a",
    b"-1.5e3",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"{\"query\":\"",
    b"\"operationName\":",
    b"\"extensions\":",
    b"\"persistedQuery\":",
    b"{\"type\":\"subscribe\",\"payload\":",
];

/// Reads a body whole and in pieces, which must agree.
fn read(kind: Kind, content_type: &str, body: &[u8]) -> Result<Vec<Operation>, Unreadable> {
    let fields = [("content-type".to_owned(), content_type.to_owned())];
    let head = Head { method: "POST", path: "/", query: &[], fields: &fields, max_body: MAX_BODY };
    let run = |size: usize| {
        let Reading::Body(mut reader) = reader(kind, &head)? else { panic!("decided without the body") };
        body.chunks(size).try_for_each(|piece| reader.feed(piece))?;
        reader.finish()
    };
    let whole = run(body.len().max(1));
    assert_eq!(run(7), whole);
    assert!(whole.as_ref().map_or(true, |operations| !operations.is_empty()), "asks for nothing");
    whole
}

fn harmless(name: &str) -> bool {
    !name.is_empty() && name.len() <= 4096 && !name.chars().any(char::is_control)
}

fn shape(read: &Result<Vec<Operation>, Unreadable>) -> Result<(usize, Vec<String>), Unreadable> {
    let kinds = |o: &Operation| match o {
        Operation::Mcp(m) => format!("{} {} {}", m.tool.is_some(), m.name.is_some(), m.arguments.len().min(3)),
        Operation::GraphQl(g) => format!("{} {} {}", g.kind, g.name.is_some(), g.fields.len().min(3)),
        other => format!("{:?}", discriminant(other)),
    };
    read.as_ref().map(|all| (all.len().min(3), all.iter().take(2).map(kinds).collect())).map_err(|e| *e)
}

/// A call is its path, character for character.
pub(super) fn grpc(data: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(data);
    let Ok(target) = Target::parse(&text, Slashes::Plain) else { return 0 };
    let fields = [("content-type".to_owned(), "application/grpc".to_owned())];
    let head = Head { method: "POST", path: target.path(), query: target.pairs(), fields: &fields, max_body: MAX_BODY };
    match reader(Kind::Grpc, &head) {
        Ok(Reading::Decided(operations)) => {
            let [Operation::Grpc { service, method }] = &operations[..] else { panic!("{operations:?}") };
            assert_eq!(format!("/{service}/{method}"), target.to_string());
            signature((1, service.contains('.')))
        }
        Ok(Reading::Body(_)) => panic!("the body of a call is not read"),
        Err(why) => signature((2, why)),
    }
}

/// What is accepted selects something, and nothing but names.
pub(super) fn graphql(data: &[u8]) -> u64 {
    let document = read(Kind::GraphQl, "application/graphql", data);
    let request = read(Kind::GraphQl, "application/json", data);
    let text = message(Kind::GraphQl, data);
    for operation in [&document, &request, &text].into_iter().flatten().flatten() {
        let Operation::GraphQl(operation) = operation else { panic!("{operation:?}") };
        assert!(!operation.fields.is_empty());
        assert!(
            operation
                .fields
                .iter()
                .chain(&operation.name)
                .all(|n| { harmless(n) && n.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) })
        );
    }
    signature((shape(&document), shape(&request), shape(&text)))
}

/// What is accepted is JSON to everybody, and says the same over WebSocket.
pub(super) fn jsonrpc(data: &[u8]) -> u64 {
    let outcome = read(Kind::JsonRpc, "application/json", data);
    assert_eq!(message(Kind::JsonRpc, data), outcome);
    for operation in outcome.iter().flatten() {
        let Operation::JsonRpc { method, .. } = operation else { panic!("{operation:?}") };
        assert!(harmless(method));
    }
    signature(shape(&outcome))
}

/// Names can be shown, and a message that is about something says about what.
pub(super) fn mcp(data: &[u8]) -> u64 {
    let outcome = read(Kind::Mcp, "application/json", data);
    for operation in outcome.iter().flatten() {
        let Operation::Mcp(m) = operation else { panic!("{operation:?}") };
        assert!(harmless(&m.method) && m.tool.iter().chain(&m.name).all(|n| harmless(n)));
        assert_eq!(m.tool.is_some(), m.method == "tools/call");
        assert!(m.arguments.len() <= 1024 && m.arguments.iter().all(|(path, _)| path.len() <= 1024));
        assert!(m.method != "stream" && m.method != "delete");
    }
    if outcome.is_ok() {
        assert!(read(Kind::JsonRpc, "application/json", data).is_ok());
    }
    signature(shape(&outcome))
}
