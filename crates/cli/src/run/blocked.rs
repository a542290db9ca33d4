//! What was blocked or failed, and what would change it: the last lines of a run.

use std::{fmt::Write as _, net::Ipv6Addr};

use stockade_audit::{Blocked, Few, Outcome, Summary, Total};
use stockade_types::{Escaped, Reason};

/// Rows that are shown.
const SHOWN: usize = 10;
/// Requests of a row that are shown.
const REQUESTS: usize = 3;
/// Characters of a sentence that are shown.
const SENTENCE: usize = 300;

/// What hints may refer to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around {
    /// An option of the command line may be the hint, as it may where there is no policy file.
    pub(super) flags: bool,
    /// Where what is not shown can be found.
    pub(super) rest: &'static str,
}

/// Nothing when nothing was.
pub(super) fn lines(summary: &Summary, around: Around) -> Vec<String> {
    let mut lines = Vec::new();
    for (outcome, verb) in [
        (Outcome::Blocked, "blocked"),
        (Outcome::LetThrough, "would have been blocked, and went through"),
        (Outcome::Failed, "failed"),
    ] {
        let rows = summary.rows(outcome);
        if rows.is_empty() {
            continue;
        }
        lines.push(format!("stockade: {} {verb}", counted(summary.total(outcome))));
        for row in rows.iter().take(SHOWN) {
            show(&mut lines, row, around);
        }
        if rows.len() > SHOWN {
            lines.push(format!("  and {} more{}", rows.len() - SHOWN, around.rest));
        }
    }
    lines
}

/// What, how often, why; then the smallest thing that would change it. Where there is none, the reason in plain words.
fn show(lines: &mut Vec<String>, row: &Blocked, around: Around) {
    let host = host(&row.host);
    // That of the question; what it was asked for is not known.
    let port = row.port.filter(|_| row.reason != Some(Reason::DnsNoPolicy));
    let port = port.map(|p| format!(":{p}")).unwrap_or_default();
    let reason = row.reason.map_or("", |r| r.code());
    let why = row.detail.as_ref().filter(|_| row.suggestions.texts.is_empty());
    let why = why.map_or_else(String::new, |text| format!(": {}", sentence(text)));
    lines.push(format!("  {:>5} × {host}{port}  {reason}{why}", row.count));
    if !row.requests.texts.is_empty() {
        lines.push(format!("          {}", requests(&row.requests)));
    }
    if row.suggestions.texts.is_empty() {
        return;
    }
    if around.flags && !row.endpoint {
        lines.push(format!("          to allow it: --allow {host}{port}"));
        return;
    }
    let place = if around.flags { "write a policy file (`--policy FILE`) with" } else { "add to the policy" };
    lines.push(format!("          to allow it: {place}"));
    lines.extend(merged(&row.suggestions.texts).into_iter().map(|line| format!("            {line}")));
    if row.suggestions.more {
        lines.push(format!("          and more of the kind{}", around.rest));
    }
}

/// As it stands in front of a port.
fn host(host: &str) -> String {
    if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { Escaped(host).to_string() }
}

/// Escaped, and of a length that a person reads.
fn sentence(text: &str) -> String {
    let mut shown: String = Escaped(text).to_string().chars().take(SENTENCE).collect();
    if text.chars().count() > SENTENCE {
        shown.push('…');
    }
    shown
}

/// `GET /a, GET /b and others`.
fn requests(few: &Few) -> String {
    let shown: Vec<_> = few.texts.iter().take(REQUESTS).map(|text| Escaped(text).to_string()).collect();
    let mut text = shown.join(", ");
    if few.more || few.texts.len() > REQUESTS {
        text.push_str(" and others");
    }
    text
}

/// Several pieces of YAML as one: lines that a piece has in common with the one before stand once.
fn merged(texts: &[String]) -> Vec<&str> {
    let mut pieces: Vec<Vec<&str>> = texts.iter().map(|text| text.lines().collect()).collect();
    // Those of one endpoint stand together, in their order.
    pieces.sort_by_key(|piece| {
        piece.iter().filter(|line| !line.trim_start().starts_with('-')).copied().collect::<Vec<_>>()
    });
    let mut lines = Vec::new();
    let mut before: &[&str] = &[];
    for piece in &pieces {
        let common = piece.iter().zip(before).take_while(|(a, b)| a == b).count();
        lines.extend(piece.iter().skip(common).copied());
        before = piece;
    }
    lines
}

fn counted(total: Total) -> String {
    let mut text = String::new();
    for (n, word) in [(total.connections, "connection"), (total.requests, "request")] {
        if n > 0 {
            let and = if text.is_empty() { "" } else { " and " };
            let s = if n == 1 { "" } else { "s" };
            // Writing to a String cannot fail.
            let _ = write!(text, "{and}{n} {word}{s}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn few(texts: &[&str]) -> Few {
        Few { texts: texts.iter().map(ToString::to_string).collect(), more: false }
    }

    fn row(requests: &[&str], suggestions: &[&str]) -> Blocked {
        Blocked {
            host: "api.test".into(),
            port: Some(443),
            reason: Some(stockade_types::Reason::L7),
            count: 7,
            endpoint: false,
            detail: Some("it is not\nallowed".into()),
            requests: few(requests),
            suggestions: few(suggestions),
        }
    }

    fn shown(row: &Blocked, flags: bool) -> String {
        let mut lines = Vec::new();
        show(&mut lines, row, Around { flags, rest: "" });
        lines.join("\n")
    }

    #[test]
    fn every_request_that_was_denied_has_its_rule() {
        let rule =
            |endpoint: &str, rules: &str| format!("network:\n  endpoints:\n    {endpoint}:\n      allow:{rules}");
        let a = rule("api", "\n        - {methods: [GET], paths: [/a]}");
        let b = rule("api", "\n        - {methods: [GET], paths: [/b]}\n        - {methods: [PUT], paths: [/b]}");
        let other = rule("other", "\n        - {methods: [GET], paths: [/c]}");
        let row = row(&["GET /a", "GET /b", "GET /c", "GET /d"], &[&a, &other, &b]);
        let text = "      7 × api.test:443  l7
          GET /a, GET /b, GET /c and others
          to allow it: add to the policy
            network:
              endpoints:
                api:
                  allow:
                    - {methods: [GET], paths: [/a]}
                    - {methods: [GET], paths: [/b]}
                    - {methods: [PUT], paths: [/b]}
                other:
                  allow:
                    - {methods: [GET], paths: [/c]}";
        assert_eq!(shown(&row, false), text);
    }

    #[test]
    fn without_a_policy_file_the_option_is_named_once() {
        let row = row(&[], &["network: {}", "network: []"]);
        assert_eq!(shown(&row, true), "      7 × api.test:443  l7\n          to allow it: --allow api.test:443");
    }

    #[test]
    fn without_a_line_that_allows_it_the_reason_stands_in_words() {
        let mut row = row(&[], &[]);
        assert_eq!(shown(&row, true), "      7 × api.test:443  l7: it is not\\u{a}allowed");
        row.host = "2001:db8::1".into();
        row.detail = Some("x".repeat(1_000));
        assert_eq!(shown(&row, true), format!("      7 × [2001:db8::1]:443  l7: {}…", "x".repeat(SENTENCE)));
    }

    #[test]
    fn no_option_allows_more_of_an_endpoint() {
        let mut row = row(&[], &["network: {}"]);
        row.endpoint = true;
        assert!(shown(&row, true).ends_with("write a policy file (`--policy FILE`) with\n            network: {}"));
    }

    #[test]
    fn a_name_that_was_looked_up_is_allowed_by_name() {
        let mut row = row(&[], &["network: {}"]);
        (row.reason, row.port) = (Some(Reason::DnsNoPolicy), Some(53));
        assert!(shown(&row, true).ends_with("to allow it: --allow api.test"), "{}", shown(&row, true));
    }

    #[test]
    fn hostile_text_is_escaped() {
        let mut row = row(&["GET /\u{1b}[2J"], &[]);
        row.host = "a\n\u{1b}[2J".into();
        row.detail = Some("\u{1b}[2J\n".into());
        let text = shown(&row, false);
        assert!(!text.contains('\u{1b}') && text.lines().count() == 2, "{text}");
        assert!(text.ends_with("GET /\\u{1b}[2J"), "{text}");
    }

    #[test]
    fn kinds_are_counted() {
        let count = |connections, requests| counted(Total { connections, requests });
        assert_eq!(count(1, 0), "1 connection");
        assert_eq!(count(2, 1), "2 connections and 1 request");
        assert_eq!(count(0, 3), "3 requests");
    }
}
