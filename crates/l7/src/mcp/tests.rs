use super::*;
use crate::protocol::tests::{Request, every_cut};

fn post() -> Request {
    Request::new("POST", "/mcp").field("content-type", "application/json").field("accept", "text/event-stream")
}

fn read_as(request: &Request, body: &str) -> Result<Vec<Mcp>, Unreadable> {
    let operations = every_cut(|| reading(&request.head()).unwrap(), body.as_bytes())?;
    Ok(operations
        .into_iter()
        .map(|operation| match operation {
            Operation::Mcp(message) => message,
            other => panic!("{other:?}"),
        })
        .collect())
}

fn read(body: &str) -> Result<Vec<Mcp>, Unreadable> {
    read_as(&post(), body)
}

fn call(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)
}

fn arguments(text: &str) -> Result<Vec<(String, String)>, Unreadable> {
    let body = call("tools/call", &format!(r#"{{"name":"t","arguments":{text}}}"#));
    Ok(read(&body)?.remove(0).arguments)
}

#[test]
fn messages_say_what_they_are_about() {
    let about = |method: &str, tool: Option<&str>, name: Option<&str>| Mcp {
        tool: tool.map(str::to_owned),
        name: name.map(str::to_owned),
        ..plain(method)
    };
    for (method, params, want) in [
        ("initialize", r#"{"protocolVersion":"2025-06-18"}"#, about("initialize", None, None)),
        ("tools/list", "{}", about("tools/list", None, None)),
        ("tools/call", r#"{"name":"search","_meta":{"progressToken":1}}"#, about("tools/call", Some("search"), None)),
        ("tools/call", r#"{"name":"a.b-c/d é"}"#, about("tools/call", Some("a.b-c/d é"), None)),
        ("prompts/get", r#"{"name":"p"}"#, about("prompts/get", None, Some("p"))),
        ("resources/read", r#"{"uri":"file:///a"}"#, about("resources/read", None, Some("file:///a"))),
        (
            "completion/complete",
            r#"{"ref":{"type":"ref/prompt","name":"p"}}"#,
            about("completion/complete", None, Some("p")),
        ),
        (
            "completion/complete",
            r#"{"ref":{"type":"ref/resource","uri":"u"}}"#,
            about("completion/complete", None, Some("u")),
        ),
    ] {
        assert_eq!(read(&call(method, params)), Ok(vec![want]), "{method} {params}");
    }
    assert_eq!(
        read(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#),
        Ok(vec![plain("notifications/initialized")])
    );
    assert_eq!(read(r#"{"jsonrpc":"2.0","id":7,"result":{"role":"user"}}"#), Ok(vec![plain("response")]));
    let batch = format!("[{},{}]", call("ping", "{}"), call("tools/call", r#"{"name":"rm"}"#));
    assert_eq!(read(&batch), Ok(vec![plain("ping"), about("tools/call", Some("rm"), None)]));
}

#[test]
fn arguments_are_flattened() {
    let pairs = |text: &str| {
        arguments(text).unwrap().into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(pairs(r#"{"path":"/tmp/x","n":5.0,"deep":true,"no":null}"#), "deep=true n=5 no=null path=/tmp/x");
    assert_eq!(pairs(r#"{"a":{"b":[1,[2],{"c":"d"}]},"e":[],"f":{}}"#), "a.b.0=1 a.b.1.0=2 a.b.2.c=d");
    assert_eq!(pairs(r#"{"a.b":1,"a":{"b":2},"c\\":3}"#), r"a.b=2 a\.b=1 c\\=3");
    assert_eq!(pairs(r#"{"p\u0061th":"\u002fetc"}"#), "path=/etc");
    assert_eq!(pairs("{}"), "");
    assert_eq!(pairs("null"), "");
    assert_eq!(arguments("[1]"), Err(Unreadable::Shape));
    assert_eq!(arguments(r#"{"a":1e20}"#), Err(Unreadable::Number));
    assert_eq!(arguments(r#"{"path":"/etc/passwd\u0000.txt"}"#), Err(Unreadable::Name));
    assert_eq!(arguments(r#"{"path":"/tmp","path":"/etc"}"#), Err(Unreadable::DuplicateKey));
    assert_eq!(arguments(r#"{"path":"/tmp","Path":"/etc"}"#), Err(Unreadable::DuplicateKey));
    let many = |n: usize| format!(r#"{{"a":[{}0]}}"#, "0,".repeat(n - 1));
    assert_eq!(arguments(&many(MAX_ARGUMENTS)).map(|a| a.len()), Ok(MAX_ARGUMENTS));
    assert_eq!(arguments(&many(MAX_ARGUMENTS + 1)), Err(Unreadable::TooMany));
    let long = |n: usize| format!(r#"{{"{}":1}}"#, "k".repeat(n));
    assert!(arguments(&long(MAX_ARGUMENT_PATH)).is_ok());
    assert_eq!(arguments(&long(MAX_ARGUMENT_PATH + 1)), Err(Unreadable::TooMany));
}

#[test]
fn what_is_no_message_is_unreadable() {
    use Unreadable as U;
    for (body, want) in [
        (call("tools/call", "{}"), U::Shape),
        (call("tools/call", "[]"), U::Shape),
        (call("tools/call", r#"["search"]"#), U::Shape),
        (call("tools/call", r#"{"name":null}"#), U::Shape),
        (call("tools/call", r#"{"name":["a"]}"#), U::Shape),
        (call("tools/call", r#"{"Name":"a"}"#), U::KeySpelling),
        (call("tools/call", r#"{"name":"a","Arguments":{}}"#), U::KeySpelling),
        (call("tools/call", r#"{"name":"a","arguments":"{}"}"#), U::Shape),
        (call("tools/call", r#"{"name":""}"#), U::Name),
        (call("tools/call", r#"{"name":"a\u0000b"}"#), U::Name),
        (call("tools/call", r#"{"name":"a\nb"}"#), U::Name),
        (call("tools/call", r#"{"name":"a\u0085"}"#), U::Name),
        (call("resources/read", r#"{"name":"a"}"#), U::Shape),
        (call("completion/complete", r#"{"ref":{}}"#), U::Shape),
        (call("completion/complete", r#"{"ref":{"name":"p","uri":"u"}}"#), U::Shape),
        (call("stream", "{}"), U::Name),
        (call("delete", "{}"), U::Name),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#.to_owned(), U::Shape),
    ] {
        assert_eq!(read(&body), Err(want), "{body}");
    }
    let long = call("tools/call", &format!(r#"{{"name":"{}"}}"#, "a".repeat(MAX_NAME + 1)));
    assert_eq!(read(&long), Err(U::Name));
}

#[test]
fn fields_that_repeat_the_body_must_agree_with_it() {
    let search = call("tools/call", r#"{"name":"search"}"#);
    let with = |method: &str, name: &str| post().field("mcp-method", method).field("mcp-name", name);
    assert!(read_as(&with("tools/call", "search"), &search).is_ok());
    for request in [with("tools/call", "admin"), with("tools/list", "search"), with("", ""), with("tools/call", "")] {
        assert_eq!(read_as(&request, &search), Err(Unreadable::Mirror), "{request:?}");
    }
    let batch = format!("[{search},{}]", call("ping", "{}"));
    assert_eq!(read_as(&post().field("mcp-method", "tools/call"), &batch), Err(Unreadable::Mirror));
    let twice = with("tools/call", "search").field("mcp-name", "admin");
    assert_eq!(reading(&twice.head()).map(|_| ()), Err(Unreadable::Repeated));
}

#[test]
fn streams_and_ends_of_sessions_have_no_body() {
    for (method, word) in [("GET", "stream"), ("DELETE", "delete")] {
        let request = Request::new(method, "/mcp");
        let body = |bytes: &[u8]| every_cut(|| reading(&request.head()).unwrap(), bytes);
        assert_eq!(body(b""), Ok(vec![Operation::Mcp(plain(word))]));
        assert_eq!(body(b"{}"), Err(Unreadable::Body));
    }
    for method in ["PUT", "HEAD", "OPTIONS", "PATCH"] {
        assert_eq!(reading(&Request::new(method, "/mcp").head()).map(|_| ()), Err(Unreadable::Method));
    }
}
