use super::*;
use crate::protocol::tests::{Request, every_cut};

fn read(body: &str) -> Result<Vec<Operation>, Unreadable> {
    let request = Request::new("POST", "/rpc").field("content-type", "application/json");
    every_cut(|| reading(&request.head()).unwrap(), body.as_bytes())
}

fn call(method: &str) -> Operation {
    Operation::JsonRpc { method: method.into(), notification: false }
}

#[test]
fn single_messages_and_batches() {
    let notification = Operation::JsonRpc { method: "log".into(), notification: true };
    for (body, want) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"eth_call","params":[]}"#, vec![call("eth_call")]),
        (r#"{"jsonrpc":"2.0","id":"a","method":"a/b"}"#, vec![call("a/b")]),
        (r#"{"jsonrpc":"2.0","id":null,"method":"m","params":null}"#, vec![call("m")]),
        (r#"{"jsonrpc":"2.0","method":"log","params":{"x":1}}"#, vec![notification.clone()]),
        (
            r#" [{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","method":"log"}] "#,
            vec![call("a"), notification],
        ),
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, vec![call("response")]),
        (r#"{"jsonrpc":"2.0","id":1,"result":null}"#, vec![call("response")]),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}"#, vec![call("response")]),
        (r#"{"jsonrpc":"2.0","id":1,"method":"\u0061dmin"}"#, vec![call("admin")]),
    ] {
        assert_eq!(read(body), Ok(want), "{body}");
    }
}

#[test]
fn what_is_no_message_is_unreadable() {
    use Unreadable as U;
    for (body, want) in [
        ("", U::NotJson),
        ("[]", U::Shape),
        ("1", U::Shape),
        ("[[]]", U::Shape),
        (r#"{"id":1,"method":"a"}"#, U::Shape),
        (r#"{"jsonrpc":"1.0","id":1,"method":"a"}"#, U::Shape),
        (r#"{"jsonrpc":2.0,"id":1,"method":"a"}"#, U::Shape),
        (r#"{"jsonrpc":"2.0","id":1}"#, U::Shape),
        (r#"{"jsonrpc":"2.0","id":1,"method":null}"#, U::Shape),
        (r#"{"jsonrpc":"2.0","id":1,"method":["a"]}"#, U::Shape),
        (r#"{"jsonrpc":"2.0","id":{},"method":"a"}"#, U::Shape),
        (r#"{"jsonrpc":"2.0","id":true,"method":"a"}"#, U::Shape),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a","params":"x"}"#, U::Shape),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a","result":1}"#, U::Shape),
        (r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{}}"#, U::Shape),
        (r#"{"jsonrpc":"2.0","result":1}"#, U::Shape),
        (r#"{"jsonrpc":"2.0","id":1,"result":1,"params":{}}"#, U::Shape),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#, U::DuplicateKey),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a","Method":"b"}"#, U::DuplicateKey),
        (r#"{"jsonrpc":"2.0","id":1,"Method":"b","result":1}"#, U::KeySpelling),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a","Params":{}}"#, U::KeySpelling),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":{"y":1,"y":2}}}"#, U::DuplicateKey),
        (r#"{"jsonrpc":"2.0","id":1,"method":""}"#, U::Name),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a\u0000"}"#, U::Name),
        (r#"{"jsonrpc":"2.0","id":1,"method":"response"}"#, U::Name),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a"}{"jsonrpc":"2.0","id":1,"method":"b"}"#, U::NotJson),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"a"},{}]"#, U::Shape),
    ] {
        assert_eq!(read(body), Err(want), "{body}");
    }
    let long = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#, "a".repeat(MAX_NAME + 1));
    assert_eq!(read(&long), Err(U::Name));
    let batch = |n| format!("[{}]", vec![r#"{"jsonrpc":"2.0","method":"a"}"#; n].join(","));
    assert_eq!(operations(batch(MAX_BATCH).as_bytes()).map(|o| o.len()), Ok(MAX_BATCH));
    assert_eq!(operations(batch(MAX_BATCH + 1).as_bytes()), Err(U::TooMany));
}

#[test]
fn only_json_by_post_is_read() {
    let json = Request::new("POST", "/").field("content-type", "application/json; charset=UTF-8");
    assert!(reading(&json.head()).is_ok());
    for (request, want) in [
        (Request::new("GET", "/"), Unreadable::Method),
        (Request::new("POST", "/"), Unreadable::ContentType),
        (Request::new("POST", "/").field("content-type", "text/plain"), Unreadable::ContentType),
        (Request::new("POST", "/").field("content-type", "application/json;charset=utf-16"), Unreadable::ContentType),
        (json.clone().field("content-type", "application/json"), Unreadable::Repeated),
        (json.clone().field("content-encoding", "br"), Unreadable::Encoding),
        (json.field("content-encoding", "gzip, gzip"), Unreadable::Encoding),
    ] {
        assert_eq!(reading(&request.head()).map(|_| ()), Err(want), "{request:?}");
    }
}
