//! Why a request is allowed or denied: every rule of the endpoint, and what keeps it from applying.

use std::fmt;

use serde::Serialize;

use super::{Explanation, MAX_SHOWN};
use crate::{
    decision::{Denial, Door, Intent, Request, RequestVerdict, TlsMode, Verdict},
    denial,
    matcher::View,
    snapshot::Snapshot,
};

/// An answer about a request, with its reasons.
#[derive(Debug, Clone, Serialize)]
pub struct RequestExplanation {
    /// The connection that it would come on.
    pub connection: Explanation,
    /// The request in a sentence.
    pub request: String,
    /// Whether requests are read on such a connection; where not, the connection's answer is the request's.
    pub read: bool,
    /// Whether it would be sent.
    pub allowed: bool,
    /// The rule that allows it.
    pub rule: Option<String>,
    /// The denial, or the one that audit would record.
    pub denial: Option<Denial>,
    /// The endpoint's rules: those of `deny` first.
    pub rules: Vec<RuleExplained>,
}

/// One rule and what keeps it from applying.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleExplained {
    /// Where it is in the policy.
    pub rule: String,
    /// The keys that do not fit; none where the rule applies.
    pub unfit: Vec<String>,
}

impl Snapshot {
    /// Says what [`Snapshot::authorize`] and then [`Snapshot::authorize_request`] answer, and why.
    #[must_use]
    pub fn explain_request(&self, intent: &Intent, request: &Request) -> RequestExplanation {
        let mut explanation = RequestExplanation {
            connection: self.explain(intent),
            request: denial::shown(request),
            read: true,
            allowed: false,
            rule: None,
            denial: None,
            rules: Vec::new(),
        };
        let permit = match self.authorize(intent) {
            Verdict::Allow(permit) => permit,
            Verdict::Deny(denial) => {
                explanation.denial = Some(denial);
                return explanation;
            }
        };
        let sealed = permit.terms.tls == TlsMode::Passthrough && intent.door != Door::Forward;
        if sealed || !permit.terms.protocol.is_http() {
            explanation.read = false;
            explanation.allowed = true;
            explanation.denial = permit.would_deny().cloned();
            return explanation;
        }
        match self.authorize_request(&permit, request) {
            RequestVerdict::Allow(given) => {
                explanation.allowed = true;
                explanation.rule = given.rule().map(str::to_owned);
                explanation.denial = given.would_deny().cloned();
            }
            RequestVerdict::Deny(denial) => explanation.denial = Some(denial),
        }
        let matcher = self.endpoint_at(&permit.terms.endpoint).and_then(|at| self.matchers.get(at as usize));
        if let Some(matcher) = matcher {
            explanation.rules = matcher.explain(&View::new(request));
            explanation.rules.truncate(MAX_SHOWN);
        }
        explanation
    }
}

impl fmt::Display for RequestExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.connection.allowed {
            return self.connection.fmt(f);
        }
        let answer = if self.allowed { "allowed" } else { "denied" };
        let by = self.rule.as_ref().map(|rule| format!(" by {rule}")).unwrap_or_default();
        let unread = if self.read { "" } else { ", like every byte of the connection: requests are not read" };
        writeln!(f, "{}: {answer}{by}{unread}", self.request)?;
        for rule in &self.rules {
            match rule.unfit.is_empty() {
                true => writeln!(f, "  {}: applies", rule.rule)?,
                false => writeln!(f, "  {}: does not apply: {}", rule.rule, rule.unfit.join(", "))?,
            }
        }
        if let Some(denial) = &self.denial {
            let would = if self.allowed { "would be denied: " } else { "" };
            writeln!(f, "  {would}{} ({}): {}", denial.reason, denial.rule, denial.detail)?;
            if let Some(suggestion) = &denial.suggestion {
                writeln!(f, "  to allow it:\n{suggestion}")?;
            }
        }
        write!(f, "on {}", self.connection)
    }
}
