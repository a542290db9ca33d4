//! Requests to the proxy as the probe sends them, and what came of them.

use stockade_testkit::Finished;

pub(crate) fn connect(authority: &str) -> String {
    format!("proxy:CONNECT {authority} HTTP/1.1\\r\\nHost: {authority}\\r\\nConnection: close\\r\\n\\r\\n")
}

/// CONNECT, and a request inside: a name is resolved when it is known what is asked for.
pub(crate) fn through(authority: &str) -> String {
    format!(
        "proxy:CONNECT {authority} HTTP/1.1\\r\\nHost: {authority}\\r\\n\\r\\n\
         GET / HTTP/1.1\\r\\nHost: {authority}\\r\\nConnection: close\\r\\n\\r\\n"
    )
}

pub(crate) fn get(authority: &str) -> String {
    format!("proxy:GET http://{authority}/ HTTP/1.1\\r\\nHost: {authority}\\r\\nConnection: close\\r\\n\\r\\n")
}

/// A request with a body; `fields` end with `\r\n` as the probe writes it.
pub(crate) fn post(url: &str, fields: &str, body: &str) -> String {
    let host = url.split('/').nth(2).unwrap_or_default();
    let length = body.len();
    let body = body.replace('\\', "\\\\");
    format!(
        "proxy:POST {url} HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\nContent-Length: {length}\\r\\n{fields}\\r\\n{body}"
    )
}

/// The status, of the last answer where a tunnel was opened before, and the reason in the body where it is a refusal.
#[track_caller]
pub(crate) fn answer(run: &Finished, attempt: &str) -> (u16, String) {
    let what = run.outcome(attempt).what;
    let status = |text: &str| text.get(..3)?.parse().ok();
    let status = what.split("HTTP/1.1 ").skip(1).filter_map(status).last().unwrap_or_default();
    let reason = what.split("\\\"reason\\\":\\\"").nth(1).and_then(|w| w.split('\\').next()).unwrap_or_default();
    (status, reason.to_owned())
}

/// How many refusals the log tells for this reason: equal ones share an event that counts them.
pub(crate) fn told(run: &Finished, reason: &str) -> u64 {
    let refused = run.events.with(reason).into_iter().filter(|e| matches!(e.action(), Some("denied" | "failed")));
    refused.map(|e| e.0["count"].as_u64().unwrap_or(1)).sum()
}

/// Each try was answered as wanted within two seconds, and has its one event.
#[track_caller]
pub(crate) fn each_answered(run: &Finished, wanted: &[(String, u16, &str)], context: &str) {
    for (attempt, status, reason) in wanted {
        let outcome = run.outcome(attempt);
        assert_eq!(answer(run, attempt), (*status, (*reason).to_owned()), "{context} {attempt} {outcome:?}\n{run:?}");
        assert!(outcome.millis < 2_000, "{context} {attempt} {outcome:?}");
        let of_reason = wanted.iter().filter(|(.., r)| r == reason).count() as u64;
        assert_eq!(told(run, reason), of_reason, "{context}: one event for each `{reason}`\n{run:?}");
    }
    assert_eq!(run.events.refusals(), wanted.len() as u64, "{context}: and no other\n{run:?}");
}
