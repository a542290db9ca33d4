//! What was blocked, and what would allow it: the last lines of a run.

use std::fmt::Write as _;

use stockade_audit::{Blocked, Few, Outcome, Summary, Total};
use stockade_types::Escaped;

/// Rows that are shown.
const SHOWN: usize = 10;
/// Requests of a row that are shown.
const REQUESTS: usize = 3;

/// Nothing when nothing was. `flags`: whether a hint may be an option of the command line, as it may where there is no
/// policy file.
pub(super) fn lines(summary: &Summary, flags: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for (outcome, verb) in
        [(Outcome::Blocked, "blocked"), (Outcome::LetThrough, "would have been blocked, and went through")]
    {
        let rows = summary.rows(outcome);
        if rows.is_empty() {
            continue;
        }
        lines.push(format!("stockade: {} {verb}", counted(summary.total(outcome))));
        for row in rows.iter().take(SHOWN) {
            show(&mut lines, row, flags);
        }
        if rows.len() > SHOWN {
            lines.push(format!("  and {} more; `--audit-log FILE` keeps them all", rows.len() - SHOWN));
        }
    }
    lines
}

fn show(lines: &mut Vec<String>, row: &Blocked, flags: bool) {
    let port = row.port.map(|p| format!(":{p}")).unwrap_or_default();
    let reason = row.reason.map_or("", |r| r.code());
    lines.push(format!("  {:>5} × {}{port}  {reason}", row.count, Escaped(&row.host)));
    if !row.requests.texts.is_empty() {
        lines.push(format!("          {}", requests(&row.requests)));
    }
    if row.suggestions.texts.is_empty() {
        return;
    }
    if flags {
        lines.push(format!("          to allow it: --allow {}{port}", Escaped(&row.host)));
        return;
    }
    lines.push("          to allow it: add to the policy".to_owned());
    lines.extend(merged(&row.suggestions.texts).into_iter().map(|line| format!("            {line}")));
    if row.suggestions.more {
        lines.push("          and more of the kind; `--audit-log FILE` keeps them all".to_owned());
    }
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
            requests: few(requests),
            suggestions: few(suggestions),
        }
    }

    fn shown(row: &Blocked, flags: bool) -> String {
        let mut lines = Vec::new();
        show(&mut lines, row, flags);
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
    fn hostile_text_is_escaped() {
        let mut row = row(&["GET /\u{1b}[2J"], &[]);
        row.host = "a\n\u{1b}[2J".into();
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
