use super::*;
use crate::protocol::tests::{Request, every_cut};

const HELLO: &str = "query H { hello }";

fn post() -> Request {
    Request::new("POST", "/graphql").field("content-type", "application/json")
}

fn read_as(request: &Request, body: &str) -> Result<String, Unreadable> {
    let operations = every_cut(|| reading(&request.head()).unwrap(), body.as_bytes())?;
    Ok(shown(operations))
}

fn shown(operations: Vec<Operation>) -> String {
    let show = |operation| match operation {
        Operation::GraphQl(GraphQl { kind, name, fields }) => {
            format!("{kind} {}: {}", name.unwrap_or_default(), fields.join(" "))
        }
        other => panic!("{other:?}"),
    };
    operations.into_iter().map(show).collect::<Vec<_>>().join("; ")
}

fn read(body: &str) -> Result<String, Unreadable> {
    read_as(&post(), body)
}

fn get(query: &str) -> Result<String, Unreadable> {
    let request = Request::new("GET", &format!("/graphql?{query}"));
    reading(&request.head())?;
    read_as(&request, "")
}

#[test]
fn requests_and_batches() {
    for (body, want) in [
        (r#"{"query":"query H { hello }"}"#, "query H: hello"),
        (r#"{"query":"{ a\n}","variables":null,"operationName":null,"extensions":null}"#, "query : a"),
        (r#"{"query":"query A{a} mutation B{b}","operationName":"B","variables":{"x":[1]}}"#, "mutation B: b"),
        (r#"{"query":"\u006dutation{x:b}"}"#, "mutation : b"),
        (r#"[{"query":"{a}"},{"query":"mutation{b}"}]"#, "query : a; mutation : b"),
    ] {
        assert_eq!(read(body).as_deref(), Ok(want), "{body}");
    }
    let raw = Request::new("POST", "/graphql").field("content-type", "application/graphql; charset=utf-8");
    assert_eq!(read_as(&raw, HELLO).as_deref(), Ok("query H: hello"));
    assert_eq!(read_as(&raw, "query A{a} query B{b}"), Err(Unreadable::OperationName));
}

#[test]
fn what_is_no_request_is_unreadable() {
    use Unreadable as U;
    for (body, want) in [
        ("", U::NotJson),
        ("[]", U::Shape),
        ("null", U::Shape),
        ("{}", U::Shape),
        (r#"{"query":null}"#, U::Shape),
        (r#"{"query":["{a}"]}"#, U::Shape),
        (r#"{"query":"{a}","variables":"{}"}"#, U::Shape),
        (r#"{"query":"{a}","operationName":1}"#, U::Shape),
        (r#"{"query":"{a}","more":1}"#, U::Shape),
        (r#"{"query":"{a}","Query":"{b}"}"#, U::DuplicateKey),
        (r#"{"Query":"{b}"}"#, U::KeySpelling),
        (r#"{"query":"{a}","operationname":"B"}"#, U::KeySpelling),
        (r#"{"query":"{a"}"#, U::Syntax),
        (r#"[{"query":"{a}"},[]]"#, U::Shape),
        (r#"[[{"query":"{a}"}]]"#, U::Shape),
    ] {
        assert_eq!(read(body), Err(want), "{body}");
    }
    let batch = |n| format!("[{}]", vec![r#"{"query":"{a}"}"#; n].join(","));
    assert_eq!(body(batch(MAX_BATCH).as_bytes()).map(|o| o.len()), Ok(MAX_BATCH));
    assert_eq!(body(batch(MAX_BATCH + 1).as_bytes()), Err(U::TooMany));
}

#[test]
fn a_persisted_query_is_read_only_with_its_document() {
    let persisted = |query: &str, hash: &str| {
        read(&format!(r#"{{{query}"extensions":{{"persistedQuery":{{"version":1,"sha256Hash":"{hash}"}}}}}}"#))
    };
    let query = format!(r#""query":"{HELLO}","#);
    let hash: String = Sha256::digest(HELLO).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(persisted(&query, &hash).as_deref(), Ok("query H: hello"));
    assert_eq!(persisted(&query, &hash.replace('a', "b")), Err(Unreadable::Persisted));
    assert_eq!(persisted(&query, ""), Err(Unreadable::Persisted));
    assert_eq!(persisted("", &hash), Err(Unreadable::Persisted));
    for body in [
        r#"{"id":"x","query":"{a}"}"#,
        r#"{"documentId":"sha256:x"}"#,
        r#"{"DOC_ID":"1","variables":{}}"#,
        r#"{"query":"{a}","extensions":{"persistedQuery":true}}"#,
    ] {
        assert_eq!(read(body), Err(Unreadable::Persisted), "{body}");
    }
    assert_eq!(read(r#"{"query":"{a}","extensions":{"PersistedQuery":{}}}"#), Err(Unreadable::KeySpelling));
    assert_eq!(get("extensions=%7B%22persistedQuery%22:%7B%7D%7D"), Err(Unreadable::Persisted));
    assert_eq!(get("queryId=1"), Err(Unreadable::Persisted));
}

#[test]
fn queries_by_get() {
    assert_eq!(get("query=%7Ba%7D&v=2").as_deref(), Ok("query : a"));
    assert_eq!(get("query={a}&variables=%7B%7D&operationName=").as_deref(), Ok("query : a"));
    assert_eq!(get("query=query+A{a}query+B{b}&operationName=B").as_deref(), Ok("query B: b"));
    for (query, want) in [
        ("", Unreadable::Shape),
        ("query", Unreadable::OperationName),
        ("query=mutation{a}", Unreadable::Method),
        ("query=subscription{a}", Unreadable::Method),
        ("query={a}&query={b}", Unreadable::Query),
        ("query={a}&Query={b}", Unreadable::Query),
        ("query={a}&query[]={b}", Unreadable::Query),
        ("query={a}&%20query={b}", Unreadable::Query),
        ("query={a}&operationName=A&operationName=B", Unreadable::Query),
        ("query={a}&variables=[]", Unreadable::Shape),
        ("query={a}&variables={", Unreadable::NotJson),
    ] {
        assert_eq!(get(query), Err(want), "{query}");
    }
    let request = Request::new("GET", "/?query={a}");
    assert_eq!(read_as(&request, r#"{"query":"mutation{b}"}"#), Err(Unreadable::Body));
}

#[test]
fn what_servers_might_prefer_to_the_body_is_refused() {
    for target in ["/?query=mutation{b}", "/?QUERY=x", "/?operationName=B", "/?variables[a]=1", "/?extensions="] {
        let request = Request::new("POST", target).field("content-type", "application/json");
        assert_eq!(reading(&request.head()).map(|_| ()), Err(Unreadable::Query), "{target}");
    }
    let harmless = Request::new("POST", "/?v=1").field("content-type", "application/json");
    assert!(reading(&harmless.head()).is_ok());
    for (method, content_type, want) in [
        ("PUT", "application/json", Unreadable::Method),
        ("OPTIONS", "application/json", Unreadable::Method),
        ("POST", "multipart/form-data; boundary=x", Unreadable::ContentType),
        ("POST", "application/x-www-form-urlencoded", Unreadable::ContentType),
        ("POST", "text/plain", Unreadable::ContentType),
    ] {
        let request = Request::new(method, "/").field("content-type", content_type);
        assert_eq!(reading(&request.head()).map(|_| ()), Err(want), "{request:?}");
    }
}

#[test]
fn messages_of_the_websocket_protocol() {
    let read = |text: &str| message(text.as_bytes()).map(shown);
    assert_eq!(
        read(r#"{"id":"1","type":"subscribe","payload":{"query":"subscription{s}"}}"#).as_deref(),
        Ok("subscription : s")
    );
    assert_eq!(read(r#"{"id":"1","type":"start","payload":{"query":"mutation{m}"}}"#).as_deref(), Ok("mutation : m"));
    for text in [r#"{"type":"connection_init","payload":{}}"#, r#"{"type":"ping"}"#, r#"{"id":"1","type":"complete"}"#]
    {
        assert_eq!(read(text).as_deref(), Ok(""), "{text}");
    }
    for (text, want) in [
        (r#"{"type":"other"}"#, Unreadable::Shape),
        (r#"{"payload":{"query":"{a}"}}"#, Unreadable::Shape),
        (r#"{"type":"subscribe"}"#, Unreadable::Shape),
        (r#"{"type":"ping","Type":"subscribe","payload":{"query":"{a}"}}"#, Unreadable::DuplicateKey),
        (r#"[{"type":"ping"}]"#, Unreadable::Shape),
        (r#"{"Type":"ping"}"#, Unreadable::KeySpelling),
    ] {
        assert_eq!(read(text), Err(want), "{text}");
    }
}
