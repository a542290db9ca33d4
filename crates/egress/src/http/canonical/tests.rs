use http::Request as Http;
use stockade_types::Reason;

use super::*;

fn terms(judged: bool) -> Terms {
    Terms { judged, ..crate::testing::terms() }
}

fn judged(method: &str, target: &str, rules: bool) -> Result<(Request, String), Violation> {
    let request = Http::builder().method(method).uri(target).body(()).unwrap();
    let (sent, judged) = canonical(&request, &terms(rules), "a.test")?;
    Ok((judged, sent.uri().to_string()))
}

#[test]
fn what_is_judged_is_what_is_sent() {
    let (request, sent) = judged("GET", "/a/../b//c%7e?x=1&y=a+b", true).unwrap();
    assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/b/c~"));
    assert_eq!(sent, "/b/c~?x=1&y=a%20b");
    assert_eq!(request.query, [("x".into(), "1".into()), ("y".into(), "a b".into())]);
}

#[test]
fn an_absolute_target_loses_its_authority() {
    assert_eq!(judged("GET", "http://a.test:80/x?y", true).unwrap().1, "/x?y");
    assert_eq!(judged("GET", "http://a.test", true).unwrap().1, "/");
    assert_eq!(judged("OPTIONS", "*", true).unwrap().0.path, "*");
}

#[test]
fn targets_that_servers_read_differently_are_refused_where_rules_look_at_them() {
    for target in ["/public/..;/secret", "/a;x/../b", "/%5csecret", "/%252e%252e/s", "/public%2f..%2fsecret", "/%c0%ae"]
    {
        let refused = judged("GET", target, true).expect_err(target);
        assert_eq!(refused.row().1, Reason::Path, "{target}");
        assert_eq!(judged("GET", target, false).expect(target).1, target, "no rule looks at it");
    }
    let kept = judged("GET", "/@scope%2fname", false).unwrap();
    assert_eq!(kept.1, "/@scope%2Fname", "registries use it");
}

#[test]
fn a_request_says_its_method_once() {
    for method in ["post", "BREW", "TRACE"] {
        assert_eq!(judged(method, "/", true).unwrap_err().row().1, Reason::L7, "{method}");
    }
    let over = Http::builder().method("POST").uri("/").header("x-http-method-override", "DELETE");
    let over = over.body(()).unwrap();
    assert_eq!(canonical(&over, &terms(true), "a.test").unwrap_err().row().1, Reason::L7);
    assert!(canonical(&over, &terms(false), "a.test").is_ok());
}

/// What the connection drops on the way is not there for rules either.
#[test]
fn fields_are_judged_as_they_are_sent() {
    let request = Http::builder()
        .uri("/")
        .header("host", "b.test")
        .header("connection", "x-dry-run")
        .header("x-dry-run", "true")
        .header("x-kept", "1");
    let (sent, judged) = canonical(&request.body(()).unwrap(), &terms(true), "a.test").unwrap();
    let names: Vec<&str> = judged.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x-kept", "host"]);
    assert_eq!(fields(sent.headers()), judged.headers);
    assert_eq!(sent.headers()["host"], "a.test");
}

#[test]
fn values_that_only_http2_can_pad_are_refused() {
    for (value, refused) in [("admin ", true), (" admin", true), ("admin\t", true), ("", false), ("a b", false)] {
        let request = Http::builder().uri("/").header("x-role", value).body(()).unwrap();
        assert_eq!(canonical(&request, &terms(false), "a.test").is_err(), refused, "{value:?}");
    }
}

#[test]
fn overrides_with_low_lines_are_overrides() {
    for (name, refused) in [("x_http_method_override", true), ("X_Original_URL", true), ("x_original", false)] {
        let request = Http::builder().uri("/").header(name, "DELETE").body(()).unwrap();
        assert_eq!(canonical(&request, &terms(true), "a.test").is_err(), refused, "{name}");
    }
}
