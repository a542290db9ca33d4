use std::{collections::BTreeMap, path::Path, time::Duration};

use bytes::Bytes;
use http::Request;
use stockade_policy::{Credential, Part, Sigv4, Store};
use stockade_types::{Reason, Secret};

use super::*;
use crate::{
    Backends, Context, Placeholders,
    test::{CANARY, Writing, decodings, entropy, writings},
};

/// A sandbox with these credentials, all of which have the canary as their value unless the test sets another.
struct Bench {
    credentials: Credentials,
    host: Host,
    port: Port,
}

fn host(text: &str) -> Host {
    Host::Name(text.parse().unwrap())
}

impl Bench {
    fn new(inject: &[(&str, &str)]) -> Self {
        Self::with(inject, &|_| Some(CANARY.into()))
    }

    fn with(inject: &[(&str, &str)], environment: &dyn Fn(&str) -> Option<std::ffi::OsString>) -> Self {
        let policy = policy(inject);
        let variables: Vec<&str> = crate::source_variables(&policy).collect();
        let context =
            Context { environment, variables: &variables, directory: Path::new("."), recheck: Duration::ZERO };
        let backends = Arc::new(Backends::open(&context));
        let mut placeholders = Placeholders::new(&mut entropy(1)).unwrap();
        let credentials = Credentials::new(&policy, &mut placeholders, backends, &mut entropy(2)).unwrap();
        Self { credentials, host: host("api.test"), port: Port::new(443).unwrap() }
    }

    fn placeholder(&self, env: &str) -> String {
        self.credentials.environment().find(|(name, _)| *name == env).unwrap().1.to_owned()
    }

    fn pass(&self, attached: &[&str], parts: &mut Parts) -> Result<Passage, Refusal> {
        let attached: Vec<String> = attached.iter().map(|n| (*n).to_owned()).collect();
        let site = Site { host: &self.host, port: self.port, credentials: &attached };
        self.credentials.pass(site, Some(&VerifiedTls::for_tests(&self.host, self.port)), parts)
    }

    /// The reason of a refusal, whose text shows nothing.
    fn refused(&self, attached: &[&str], mut parts: Parts) -> Reason {
        let refusal = self.pass(attached, &mut parts).unwrap_err();
        assert!(!format!("{refusal} {refusal:?}").contains("canary"), "{refusal:?}");
        assert!(!format!("{refusal}").contains(self.credentials.markers.placeholders().core()), "{refusal}");
        refusal.reason()
    }
}

/// `A` is the variable of the credential `a`, and so on.
fn policy(inject: &[(&str, &str)]) -> BTreeMap<String, Credential> {
    let rows = inject.iter().map(|(name, inject)| {
        let env = name.to_uppercase();
        ((*name).to_owned(), Credential::new(env.clone(), Store::Env(format!("S_{env}")), form(inject)))
    });
    rows.collect()
}

/// `PLACE ARGUMENT`, and for a template its two sides.
fn form(text: &str) -> Inject {
    let sides = |text: &str| {
        let (before, after) = text.split_once("{secret}").unwrap();
        (before.to_owned(), after.to_owned())
    };
    let (place, rest) = text.split_once(' ').unwrap();
    match place {
        "header" => {
            let (name, template) = rest.split_once(' ').unwrap();
            let (before, after) = sides(template);
            Inject::Header { name: name.to_owned(), before, after }
        }
        "path" => {
            let (before, after) = sides(rest);
            Inject::Path { before, after }
        }
        "basic" => Inject::Basic { user: rest.to_owned() },
        "query" => Inject::Query { name: rest.to_owned() },
        "json" => Inject::Json { pointer: rest.to_owned() },
        "form" => Inject::Form { name: rest.to_owned() },
        "sigv4" => {
            let part = |env: &str| Part { env: env.to_owned(), source: Store::Env(format!("S_{env}")) };
            Inject::Sigv4(Sigv4 {
                service: Some(rest.to_owned()),
                region: None,
                access_key_id: part("ID"),
                session_token: Some(part("TOKEN")),
            })
        }
        other => panic!("{other}"),
    }
}

fn get(target: &str, fields: &[(&str, &str)]) -> Parts {
    let request = fields.iter().fold(Request::builder().uri(target), |r, (name, value)| r.header(*name, *value));
    request.body(()).unwrap().into_parts().0
}

const BEARER: (&str, &str) = ("a", "header authorization Bearer {secret}");
const KEY: (&str, &str) = ("b", "header x-api-key {secret}");

#[test]
fn a_field_gets_exactly_one_value_whatever_the_client_sent() {
    let bench = Bench::new(&[BEARER]);
    let placeholder = bench.placeholder("A");
    let basic = STANDARD.encode(format!("user:{placeholder}"));
    for fields in [
        vec![],
        vec![("authorization", format!("Bearer {placeholder}"))],
        vec![("authorization", format!("token {placeholder}"))],
        vec![("authorization", format!("Basic {basic}"))],
        vec![("authorization", "Bearer attackers-own".to_owned())],
        vec![("authorization", format!("Bearer {placeholder}")), ("authorization", "Bearer second".to_owned())],
        vec![("connection", "close, Authorization".to_owned()), ("authorization", format!("Bearer {placeholder}"))],
    ] {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let mut parts = get("/x?y=z", &fields);
        let passage = bench.pass(&["a"], &mut parts).unwrap();
        let values: Vec<_> = parts.headers.get_all("authorization").iter().collect();
        assert_eq!(values, [&*format!("Bearer {CANARY}")], "{fields:?}");
        assert!(values[0].is_sensitive() && !format!("{parts:?}").contains("canary"));
        assert!(!parts.headers.contains_key("connection"));
        assert_eq!(parts.headers["accept-encoding"], "identity");
        assert_eq!(passage.injected, ["a"]);
        assert_eq!(parts.uri, "/x?y=z");
    }
}

#[test]
fn basic_is_built_anew() {
    let bench = Bench::new(&[("a", "basic x-access-token")]);
    let sent = format!("Basic {}", STANDARD.encode(format!("git:{}", bench.placeholder("A"))));
    let mut parts = get("/", &[("authorization", &sent)]);
    bench.pass(&["a"], &mut parts).unwrap();
    let want = format!("Basic {}", STANDARD.encode(format!("x-access-token:{CANARY}")));
    assert_eq!(parts.headers["authorization"], want);
}

#[test]
fn a_query_parameter_is_set_once() {
    let bench = Bench::new(&[("a", "query key")]);
    let placeholder = bench.placeholder("A");
    let encoded = pairs::encode(CANARY);
    for target in [format!("/p?key={placeholder}&q=1"), "/p?q=1".into(), format!("/p?key=own&q=1&k%65y={placeholder}")]
    {
        let mut parts = get(&target, &[]);
        bench.pass(&["a"], &mut parts).unwrap();
        assert_eq!(parts.uri.to_string(), format!("/p?q=1&key={}", *encoded));
    }
}

#[test]
fn a_path_gets_the_value_where_the_pattern_has_it() {
    let opaque = "123456:AAcanary-opaque_value";
    let bench = Bench::with(&[("a", "path /bot{secret}/**")], &|_| Some(opaque.into()));
    let placeholder = bench.placeholder("A");
    let mut parts = get(&format!("/bot{placeholder}/send?text=hi"), &[]);
    assert_eq!(bench.pass(&["a"], &mut parts).unwrap().injected, ["a"]);
    assert_eq!(parts.uri, "/bot123456%3AAAcanary-opaque_value/send?text=hi");
    let mut parts = get("/other", &[]);
    assert!(bench.pass(&["a"], &mut parts).unwrap().injected.is_empty());
    assert_eq!(bench.refused(&["a"], get("/botATTACKER/send", &[])), Reason::ForeignCredential);
    assert_eq!(bench.refused(&["a"], get(&format!("/file/bot{placeholder}/x"), &[])), Reason::CredSurface);
    assert_eq!(bench.refused(&["a"], get(&format!("/bot{placeholder}/{placeholder}"), &[])), Reason::CredSurface);
}

#[test]
fn cred_02_03_and_06_a_placeholder_elsewhere_is_out_of_scope() {
    let bench = Bench::new(&[BEARER, KEY]);
    let a = bench.placeholder("A");
    for (attached, parts) in [
        (vec!["b"], get("/", &[("x-api-key", &a)])),
        (vec!["b"], get("/", &[("authorization", &a)])),
        (vec![], get("/", &[("authorization", &a)])),
        (vec![], get(&format!("/x?t={a}"), &[])),
    ] {
        assert_eq!(bench.refused(&attached, parts), Reason::CredScope);
    }
    // Without proof of TLS, or with one of another host or port.
    let attached = ["a".to_owned()];
    let site = Site { host: &bench.host, port: bench.port, credentials: &attached };
    let other = VerifiedTls::for_tests(&host("evil.test"), bench.port);
    let port = VerifiedTls::for_tests(&bench.host, Port::new(8443).unwrap());
    for tls in [None, Some(&other), Some(&port)] {
        let mut parts = get("/", &[("authorization", &a)]);
        assert_eq!(bench.credentials.pass(site, tls, &mut parts).unwrap_err().reason(), Reason::CredScope);
        assert!(!format!("{:?}", parts.headers.get("authorization")).contains(CANARY));
    }
}

#[test]
fn cred_04_a_placeholder_on_another_surface_is_refused() {
    let bench = Bench::new(&[BEARER]);
    for Writing { name, before, text, after } in writings(&bench.placeholder("A")) {
        let text = String::from_utf8([&before[..], &text, &after].concat()).unwrap();
        let coded = text.replace(['"', ' ', '\\'], "_");
        for parts in [get("/", &[("cookie", &text)]), get("/", &[("x-note", &text)])] {
            assert_eq!(bench.refused(&["a"], parts), Reason::CredSurface, "{name}");
        }
        if !text.contains('\\') {
            assert_eq!(bench.refused(&["a"], get(&format!("/{coded}"), &[])), Reason::CredSurface, "{name}");
            assert_eq!(bench.refused(&["a"], get(&format!("/?q={coded}"), &[])), Reason::CredSurface, "{name}");
        }
        let Body::Stream(mut stream) = bench.pass(&["a"], &mut get("/", &[])).unwrap().body else { panic!("{name}") };
        let refusal = stream.pass(Bytes::from(text.into_bytes())).and_then(|_| stream.finish()).unwrap_err();
        assert_eq!(refusal.reason(), Reason::CredSurface, "{name}");
    }
    assert_eq!(bench.refused(&["a"], get("/", &[("content-encoding", "gzip")])), Reason::Uninspectable);
}

#[test]
fn cred_07_other_tokens_are_refused_where_they_are_not_replaced() {
    let bench = Bench::new(&[BEARER]);
    for parts in [
        get("/", &[("x-api-key", "own")]),
        get("/", &[("private-token", "own")]),
        get("/?access_token=own", &[]),
        get("/?q=1;Access%5Ftoken=own", &[]),
        get("/", &[("x_api_key", "own")]),
        get("/?X-Amz-Signature=own", &[]),
    ] {
        assert_eq!(bench.refused(&["a"], parts), Reason::ForeignCredential);
    }
    let bench = Bench::new(&[("a", "header x-custom-key {secret}")]);
    assert_eq!(bench.refused(&["a"], get("/", &[("x_custom_key", "own")])), Reason::ForeignCredential);
    let bench = Bench::new(&[("a", "query key")]);
    assert_eq!(bench.refused(&["a"], get("/?q=1;key=own", &[])), Reason::ForeignCredential);
    // Where nothing is injected they are the command's own affair.
    let mut parts = get("/?access_token=own", &[("x-api-key", "own"), ("authorization", "own")]);
    bench.pass(&[], &mut parts).unwrap();
    assert_eq!(parts.headers["authorization"], "own");
}

#[test]
fn where_two_belong_the_client_says_which() {
    let bench = Bench::with(&[BEARER, ("b", "header authorization token {secret}")], &|name| {
        Some(format!("{CANARY}{name}").into())
    });
    let both = ["a", "b"];
    for (env, want) in [("A", format!("Bearer {CANARY}S_A")), ("B", format!("token {CANARY}S_B"))] {
        let mut parts = get("/", &[("authorization", &bench.placeholder(env))]);
        bench.pass(&both, &mut parts).unwrap();
        assert_eq!(parts.headers["authorization"], want);
    }
    let mut parts = get("/", &[]);
    bench.pass(&both, &mut parts).unwrap();
    assert!(!parts.headers.contains_key("authorization"));
    assert_eq!(bench.refused(&both, get("/", &[("authorization", "own")])), Reason::ForeignCredential);
}

#[test]
fn cred_09_a_value_that_cannot_stand_there_is_refused_at_resolve() {
    for value in
        ["with\r\nline-end", "with space in it", "with\u{e9}accent", "short", &"x".repeat(4097), "with\0zero-in"]
    {
        let bench = Bench::with(&[BEARER], &|_| Some(value.into()));
        assert_eq!(bench.refused(&["a"], get("/", &[])), Reason::CredInvalid, "{value:?}");
        assert_eq!(bench.credentials.problems().len(), 1, "{value:?}");
    }
    for value in ["../../../etc", "value/with", "value\\with", "value%2fwith"] {
        let bench = Bench::with(&[("a", "path /{secret}/x")], &|_| Some(value.into()));
        let parts = get(&format!("/{}/x", bench.placeholder("A")), &[]);
        assert_eq!(bench.refused(&["a"], parts), Reason::CredInvalid, "{value:?}");
    }
}

#[test]
fn cred_10_and_14_what_stands_for_nothing_fails_closed() {
    let bench = Bench::with(&[BEARER], &|_| None);
    assert_eq!(bench.refused(&["a"], get("/", &[])), Reason::CredUnresolved);
    let bench = Bench::new(&[BEARER]);
    assert_eq!(bench.refused(&["gone"], get("/", &[])), Reason::CredUnresolved);
    let core = bench.credentials.markers.placeholders().core().to_owned();
    for forged in [format!("Bearer {core}AAAAAAAAAA"), format!("Bearer {core}")] {
        assert_eq!(bench.refused(&["a"], get("/", &[("authorization", &forged)])), Reason::CredUnresolved);
        assert_eq!(bench.refused(&[], get("/", &[("x-any", &forged)])), Reason::CredUnresolved);
    }
}

fn collected(bench: &Bench, kind: &str, body: &str) -> Result<(Parts, String), Refusal> {
    let mut parts = get("/", &[("content-type", kind), ("content-length", "1"), ("transfer-encoding", "chunked")]);
    let Body::Collect(collect) = bench.pass(&["a"], &mut parts)?.body else { panic!("not collected") };
    assert_eq!(collect.limit(), MAX_BODY);
    let body = collect.finish(&mut parts, Bytes::copy_from_slice(body.as_bytes()))?;
    Ok((parts, String::from_utf8(body.into()).unwrap()))
}

#[test]
fn a_json_body_gets_the_value_in_its_field_alone() {
    let value = "canary\"quote\\slash+";
    let bench = Bench::with(&[("a", "json /auth/token")], &|_| Some(value.into()));
    let p = bench.placeholder("A");
    let json = |body: &str| collected(&bench, "application/json; charset=utf-8", body);
    let (parts, body) = json(&format!(r#"{{"n": 1.50, "auth" : {{"token":"{p}"}}, "n2":[]}}"#)).unwrap();
    assert_eq!(body, r#"{"n": 1.50, "auth" : {"token":"canary\"quote\\slash+"}, "n2":[]}"#);
    assert_eq!(parts.headers["content-length"], body.len().to_string());
    assert!(!parts.headers.contains_key("transfer-encoding"));
    assert!(json(r#"{"auth":{"token":"attackers"}}"#).unwrap().1.contains("canary"));
    assert!(json(&format!(r#"{{"auth":{{"token":"Bearer {p}"}}}}"#)).unwrap().1.contains("Bearer canary"));
    assert_eq!(json(r#"{"other": 1}"#).unwrap().1, r#"{"other": 1}"#);
    assert_eq!(json("").unwrap().1, "");
    let reason = |body: &str| json(body).unwrap_err().reason();
    assert_eq!(reason(&format!(r#"{{"auth":{{"token":"{p}"}},"text":"{p}"}}"#)), Reason::CredSurface);
    assert_eq!(reason(&format!(r#"{{"text":"{p}"}}"#)), Reason::CredSurface);
    assert_eq!(reason(&format!(r#"{{"auth":{{"token":"{p} {p}"}}}}"#)), Reason::CredSurface);
    assert_eq!(reason(r#"{"auth":{"token":"a","token":"b"}}"#), Reason::CredSurface);
    assert_eq!(reason("not json"), Reason::CredSurface);
}

#[test]
fn a_form_body_gets_the_value_in_its_field_alone() {
    let bench = Bench::new(&[("a", "form client_secret")]);
    let p = bench.placeholder("A");
    let form = |body: &str| collected(&bench, "application/x-www-form-urlencoded", body);
    let want = format!("grant_type=x&client_secret={}", *pairs::encode(CANARY));
    assert_eq!(form(&format!("client_secret={p}&grant_type=x")).unwrap().1, want);
    assert_eq!(form("client_secret=attackers&grant_type=x").unwrap().1, want);
    assert_eq!(form("grant_type=x").unwrap().1, "grant_type=x");
    let reason = |body: &str| form(body).unwrap_err().reason();
    assert_eq!(reason(&format!("note={p}")), Reason::CredSurface);
    assert_eq!(reason("a=1;client_secret=own&client_secret=x"), Reason::CredSurface);
    assert_eq!(reason(&format!("client_secret={p}&client_secret={p}")), Reason::CredSurface);
}

#[test]
fn websocket_messages_get_the_value_in_their_field_alone() {
    let bench = Bench::new(&[("a", "json /d/token")]);
    let p = bench.placeholder("A");
    let messages = bench.pass(&["a"], &mut get("/", &[])).unwrap().messages;
    let identify = format!(r#"{{"op":2,"d":{{"token":"{p}"}}}}"#);
    assert_eq!(messages.text(&identify).unwrap(), format!(r#"{{"op":2,"d":{{"token":"{CANARY}"}}}}"#));
    for untouched in ["ping", r#"{"op":1}"#, ""] {
        assert_eq!(messages.text(untouched).unwrap(), untouched);
    }
    for refused in [p.clone(), format!(r#"{{"text":"{p}"}}"#)] {
        assert_eq!(messages.text(&refused).unwrap_err().reason(), Reason::CredSurface);
        assert_eq!(messages.binary(refused.as_bytes()).unwrap_err().reason(), Reason::CredSurface);
    }
    messages.binary(b"\0binary").unwrap();
}

#[test]
fn what_comes_back_holds_the_placeholder() {
    let bench = Bench::new(&[BEARER]);
    let passage = bench.pass(&["a"], &mut get("/", &[])).unwrap();
    let mut fields = HeaderMap::new();
    fields.insert("x-echo", HeaderValue::from_str(&format!("Bearer {CANARY}")).unwrap());
    assert_eq!(passage.response.fields(&mut fields), 1);
    assert_eq!(fields["x-echo"], format!("Bearer {}", bench.placeholder("A")));
    let mut scrubber = passage.response.body(&fields).unwrap().unwrap();
    let mut out = Vec::new();
    scrubber.feed(format!("you sent {CANARY}").as_bytes(), &mut out);
    scrubber.finish(&mut out);
    assert_eq!(out, format!("you sent {}", bench.placeholder("A")).into_bytes());
    assert!(decodings(&out).iter().all(|d| !d.contains("canary")));
    fields.insert("content-encoding", HeaderValue::from_static("br"));
    assert!(passage.response.body(&fields).is_err());
    // Where nothing is injected nothing is held up.
    assert!(bench.pass(&[], &mut get("/", &[])).unwrap().response.body(&fields).unwrap().is_none());
}

#[test]
fn cred_08_trailers_carry_no_authentication() {
    let bench = Bench::new(&[BEARER]);
    let Body::Stream(stream) = bench.pass(&["a"], &mut get("/", &[])).unwrap().body else { panic!() };
    let mut trailers = HeaderMap::new();
    trailers.insert("authorization", HeaderValue::from_static("Bearer own"));
    trailers.insert("x-checksum", HeaderValue::from_static("1"));
    stream.trailers(&mut trailers).unwrap();
    assert_eq!(trailers.keys().collect::<Vec<_>>(), ["x-checksum"]);
    trailers.insert("x-note", HeaderValue::from_str(&bench.placeholder("A")).unwrap());
    assert_eq!(stream.trailers(&mut trailers).unwrap_err().reason(), Reason::CredSurface);
}

#[test]
fn cred_11_a_rotated_value_is_used_and_scrubbed_from_the_next_request_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let credential = Credential::new("A".into(), Store::File("token".into()), form("header x-key {secret}"));
    let policy = BTreeMap::from([("a".to_owned(), credential)]);
    assert!(crate::source_files(&policy).next().is_some_and(|file| file.ends_with("token")));
    std::fs::write(&path, "first-canary-value").unwrap();
    let context =
        Context { environment: &|_| None, variables: &[], directory: directory.path(), recheck: Duration::ZERO };
    let mut placeholders = Placeholders::new(&mut entropy(1)).unwrap();
    let backends = Arc::new(Backends::open(&context));
    let credentials = Credentials::new(&policy, &mut placeholders, backends, &mut entropy(2)).unwrap();
    let (host, port) = (host("api.test"), Port::new(443).unwrap());
    let attached = ["a".to_owned()];
    let site = Site { host: &host, port, credentials: &attached };
    let tls = VerifiedTls::for_tests(&host, port);
    let mut parts = get("/", &[]);
    let first = credentials.pass(site, Some(&tls), &mut parts).unwrap().response;
    assert_eq!(parts.headers["x-key"], "first-canary-value");
    std::fs::write(directory.path().join("new"), "second-canary-value").unwrap();
    std::fs::rename(directory.path().join("new"), &path).unwrap();
    let second = credentials.pass(site, Some(&tls), &mut parts).unwrap().response;
    assert_eq!(parts.headers["x-key"], "second-canary-value");
    for (response, value) in [(first, "first-canary-value"), (second, "second-canary-value")] {
        let mut message = value.as_bytes().to_vec();
        assert_eq!((response.message(&mut message), message.contains(&b'-')), (1, false));
    }
    std::fs::remove_file(&path).unwrap();
    let refusal = credentials.pass(site, Some(&tls), &mut parts).unwrap_err();
    assert_eq!(refusal.reason(), Reason::CredUnresolved);
}

mod aws {
    use super::*;

    const SIGV4: (&str, &str) = ("aws", "sigv4 s3");

    fn bench() -> Bench {
        Bench::with(&[SIGV4], &|name| {
            Some(match name {
                "S_ID" => "AKIAcanaryEXAMPLE000".into(),
                "S_TOKEN" => "session-canary-token-0000000000000000000000".into(),
                _ => CANARY.into(),
            })
        })
    }

    fn signed(bench: &Bench, fields: &[(&str, &str)]) -> Parts {
        let field = format!(
            "AWS4-HMAC-SHA256 Credential={}/20260101/eu-west-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=0",
            bench.placeholder("ID")
        );
        let token = bench.placeholder("TOKEN");
        let mut all = vec![
            ("host", "api.test"),
            ("x-amz-date", "20260101T000000Z"),
            ("authorization", field.as_str()),
            ("x-amz-security-token", &token),
        ];
        all.extend(fields);
        get("/bucket/key?list-type=2", &all)
    }

    #[test]
    fn a_request_is_signed_with_the_real_keys() {
        let bench = bench();
        let mut parts = signed(&bench, &[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")]);
        let passage = bench.pass(&["aws"], &mut parts).unwrap();
        assert!(matches!(passage.body, Body::Stream(_)));
        let field = parts.headers["authorization"].to_str().unwrap();
        assert!(field.contains("Credential=AKIAcanaryEXAMPLE000/20260101/eu-west-1/s3/aws4_request"), "{field}");
        assert_eq!(parts.headers["x-amz-security-token"], "session-canary-token-0000000000000000000000");
        let mut echo = b"AKIAcanaryEXAMPLE000 session-canary-token-0000000000000000000000".to_vec();
        assert_eq!(passage.response.message(&mut echo), 2);
        assert!(!String::from_utf8(echo).unwrap().contains("canary"));
    }

    #[test]
    fn a_body_whose_hash_is_not_declared_is_collected() {
        let bench = bench();
        let mut parts = signed(&bench, &[]);
        let Body::Collect(collect) = bench.pass(&["aws"], &mut parts).unwrap().body else { panic!("streamed") };
        assert_eq!(collect.limit(), sigv4::MAX_SIGNED_BODY);
        collect.finish(&mut parts, Bytes::from_static(b"<xml/>")).unwrap();
        assert!(parts.headers["authorization"].to_str().unwrap().contains("AKIAcanary"));
    }

    #[test]
    fn a_placeholder_cut_by_chunk_borders_is_found() {
        let bench = bench();
        let mut parts = signed(&bench, &[("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")]);
        let Body::Stream(mut stream) = bench.pass(&["aws"], &mut parts).unwrap().body else { panic!("collected") };
        let (key, zeros) = (bench.placeholder("AWS"), "0".repeat(64));
        let chunk = |data: &str| Bytes::from(format!("{:x};chunk-signature={zeros}\r\n{data}\r\n", data.len()));
        stream.pass(chunk(&key[..10])).unwrap();
        let refusal = stream.pass(chunk(&format!("{} and more of it", &key[10..]))).unwrap_err();
        assert_eq!(refusal.reason(), Reason::CredSurface);
    }

    #[test]
    fn other_keys_scopes_and_schemes_are_refused() {
        let bench = bench();
        let own =
            "AWS4-HMAC-SHA256 Credential=AKIAOWN/20260101/eu-west-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        let date = ("x-amz-date", "20260101T000000Z");
        assert_eq!(bench.refused(&["aws"], get("/", &[("authorization", own), date])), Reason::ForeignCredential);
        let sts = own.replace("AKIAOWN", &bench.placeholder("ID")).replace("/s3/", "/sts/");
        assert_eq!(bench.refused(&["aws"], get("/", &[("authorization", &sts), date])), Reason::Sigv4);
        assert_eq!(bench.refused(&["aws"], get("/", &[("authorization", "Bearer x")])), Reason::Sigv4);
        assert_eq!(bench.refused(&["aws"], get("/", &[("x-note", &bench.placeholder("AWS"))])), Reason::CredSurface);
        assert_eq!(bench.refused(&[], get("/", &[("x-note", &bench.placeholder("TOKEN"))])), Reason::CredScope);
    }

    #[test]
    fn links_signed_with_other_keys_are_refused_whatever_signed_them() {
        let bench = bench();
        for query in [
            "AWSAccessKeyId=AKIAOWN&Expires=1&Signature=x",
            "awsaccesskeyid=AKIAOWN&Signature=x",
            "a=1;AWSAccessKeyI%64=AKIAOWN&Signature=x",
            "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=own&X-Goog-Signature=x",
            "GoogleAccessId=own&Signature=x",
        ] {
            let refused = bench.refused(&["aws"], get(&format!("/bucket/key?{query}"), &[]));
            assert_eq!(refused, Reason::ForeignCredential, "{query}");
        }
        let own = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAOWN%2F20260101%2Feu-west-1%2Fs3%2Faws4_request\
            &X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=0";
        assert_eq!(bench.refused(&["aws"], get(&format!("/bucket/key?{own}"), &[])), Reason::ForeignCredential);
        let mut plain = get("/bucket/key?list-type=2&prefix=signature", &[]);
        assert!(bench.pass(&["aws"], &mut plain).unwrap().injected.is_empty(), "the control");
    }

    #[test]
    fn an_anonymous_request_gets_nothing() {
        let bench = bench();
        let mut parts = get("/public", &[("x-amz-security-token", "own")]);
        assert!(bench.pass(&["aws"], &mut parts).unwrap().injected.is_empty());
        assert!(!parts.headers.contains_key("x-amz-security-token") && !parts.headers.contains_key("authorization"));
    }
}

#[test]
fn nothing_shows_a_value() {
    let bench = Bench::new(&[BEARER]);
    let secret = Secret::new(CANARY.to_owned());
    let passage = bench.pass(&["a"], &mut get("/", &[])).unwrap();
    let shown = format!("{:?} {passage:?} {secret:?}", bench.credentials);
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn credentials_agree_while_place_and_source_stay() {
    let one = Bench::new(&[BEARER, KEY]);
    let agree =
        |other: &[(&str, &str)], name: &str| one.credentials.agree(&Bench::new(other).credentials, &[name.to_owned()]);
    assert!(agree(&[BEARER], "a"));
    assert!(!agree(&[BEARER], "b"), "detached");
    assert!(!agree(&[("a", "query key")], "a"), "another place");
}
