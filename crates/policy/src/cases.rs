//! Policies tested like code: YAML cases of a connection or request and the answer it must get.
//!
//! ```yaml
//! policy: |                     # for all cases; left out: the policy being tested
//!   version: 1
//! cases:
//!   - note: what this shows
//!     input: {door: connect, host: api.example.org, port: 443}
//!     want: deny                # allow, deny, or reject: the policy itself must be refused
//!     reason: no_policy         # for deny
//!     endpoint: api             # for allow
//!     rule: allow[0]            # the rule of the endpoint that decided
//!     would: l7                 # for allow by `mode: audit`: the reason of the denial that would have been
//!     message: part of it       # for reject, or of a denial's detail
//!     policy: …                 # for this case alone
//!     rego: …                   # a user module, for this case alone
//!   - note: a program asks
//!     input: {host: api.example.org, port: 443, caller: /usr/bin/git}   # or {exe, sha256, script, ancestors}
//!     want: allow
//!   - note: a request
//!     input:
//!       {host: api.example.org, port: 443, method: POST, target: "/x?y=z", headers: {accept: text/plain},
//!        operations: [{jsonrpc: {method: eth_call}}]}   # or grpc, graphql, mcp: as the protocol's reader gives them
//!     want: allow
//! ```

mod input;

use serde::Serialize;
use stockade_types::{Generation, Reason};

use self::input::Input;
use crate::{
    decision::{Denial, RequestVerdict, Verdict},
    diagnostic::{Position, Rejected, Report, Source},
    model::Policy,
    parse::fields::{Fields, Reader, Trail},
    snapshot::{Posture, Snapshot},
    yaml::{self, Node},
};

/// What one case came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// What the case says it shows.
    pub note: String,
    /// Where it is written.
    pub at: Position,
    /// What differs from what is wanted; nothing where the case passes.
    pub failure: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Allow,
    Deny,
    Reject,
}

struct Case {
    note: String,
    at: Position,
    input: Option<Input>,
    want: Want,
    reason: Option<Reason>,
    endpoint: Option<String>,
    rule: Option<String>,
    would: Option<Reason>,
    message: Option<String>,
    policy: Option<Source>,
    rego: Option<Source>,
}

/// Runs the cases of one file against a snapshot; cases with a policy of their own compile that.
///
/// # Errors
/// What is wrong with the file of cases. So is a case without a policy where no snapshot is given.
pub fn run(source: &Source, snapshot: Option<&Snapshot>) -> Result<Vec<Outcome>, Rejected> {
    let root = yaml::parse(source)?;
    let mut report = Report::default();
    let mut r = Reader { file: &source.name, report: &mut report };
    let mut cases = Vec::new();
    if let Some(fields) = r.fields(&Trail::Root, &root, &["policy", "cases"]) {
        let trail = Trail::Key(&Trail::Root, "policy");
        let common = fields.get("policy").and_then(|n| r.text(&trail, n));
        let common = common.map(|text| Source::new("policy", text));
        match fields.get("cases") {
            Some(node) => {
                let trail = Trail::Key(&Trail::Root, "cases");
                cases = r.each(&trail, node, |r, trail, node| {
                    let case = case(r, trail, node, common.as_ref())?;
                    if snapshot.is_none() && case.policy.is_none() && case.rego.is_none() {
                        let help = "name the one to be tested: `stockade policy test --policy FILE CASES`";
                        r.error(trail, case.at, "a case without a policy", Some(help.to_owned()));
                    }
                    Some(case)
                });
            }
            None => r.error(&Trail::Root, root.at, "`cases` is missing", None),
        }
    }
    let cases = report.finish(cases)?;
    Ok(cases
        .into_iter()
        .map(|case| Outcome { failure: case.failure(snapshot), note: case.note, at: case.at })
        .collect())
}

fn case(r: &mut Reader<'_>, trail: &Trail<'_>, node: &Node, common: Option<&Source>) -> Option<Case> {
    let known = ["note", "input", "want", "reason", "endpoint", "rule", "would", "message", "policy", "rego"];
    let fields = r.fields(trail, node, &known)?;
    let text = |r: &mut Reader<'_>, key: &str| {
        fields.get(key).and_then(|n| r.text(&Trail::Key(trail, key), n)).map(str::to_owned)
    };
    let words = [("allow", Want::Allow), ("deny", Want::Deny), ("reject", Want::Reject)];
    let want = match fields.get("want") {
        Some(node) => r.word(&Trail::Key(trail, "want"), node, "answer", &words),
        None => {
            r.error(trail, node.at, "`want` is missing", Some("write allow, deny or reject".to_owned()));
            None
        }
    }?;
    let input = match fields.get("input") {
        Some(node) => Some(input::input(r, &Trail::Key(trail, "input"), node)?),
        None if want == Want::Reject => None,
        None => {
            r.error(trail, node.at, "`input` is missing", None);
            return None;
        }
    };
    let case = Case {
        note: text(r, "note").unwrap_or_default(),
        at: node.at,
        input,
        want,
        reason: reason(r, trail, fields, "reason"),
        endpoint: text(r, "endpoint"),
        rule: text(r, "rule"),
        would: reason(r, trail, fields, "would"),
        message: text(r, "message"),
        policy: text(r, "policy").map(|t| Source::new("policy", t)).or_else(|| common.cloned()),
        rego: text(r, "rego").map(|t| Source::new("module.rego", t)),
    };
    let at_odds = match want {
        Want::Allow => case.reason.is_some() || case.message.is_some(),
        Want::Deny => case.endpoint.is_some() || case.would.is_some(),
        Want::Reject => {
            let more = case.rule.is_some() || case.would.is_some() || case.input.is_some();
            more || case.endpoint.is_some() || case.reason.is_some()
        }
    };
    if at_odds {
        let help = "allow: endpoint, rule, would; deny: reason, rule, message; reject: message and no input";
        r.error(trail, node.at, "a key that does not go with `want`", Some(help.to_owned()));
    }
    Some(case)
}

fn reason(r: &mut Reader<'_>, trail: &Trail<'_>, fields: Fields<'_>, key: &str) -> Option<Reason> {
    let words: Vec<_> = Reason::ALL.iter().map(|r| (r.code(), *r)).collect();
    r.word(&Trail::Key(trail, key), fields.get(key)?, "reason", &words)
}

/// What a snapshot says to a case: what allows it, or the denial.
enum Answer {
    Allow { endpoint: String, rule: Option<String>, would: Option<Denial> },
    Deny(Denial),
}

impl Answer {
    fn to(input: &Input, snapshot: &Snapshot) -> Self {
        let permit = match snapshot.authorize(&input.intent(snapshot)) {
            Verdict::Allow(permit) => permit,
            Verdict::Deny(denial) => return Self::Deny(denial),
        };
        let endpoint = permit.terms().endpoint.clone();
        let Some(request) = &input.request else {
            return Self::Allow { endpoint, rule: None, would: permit.would_deny().cloned() };
        };
        match snapshot.authorize_request(&permit, request) {
            RequestVerdict::Allow(given) => {
                Self::Allow { endpoint, rule: given.rule().map(str::to_owned), would: given.would_deny().cloned() }
            }
            RequestVerdict::Deny(denial) => Self::Deny(denial),
        }
    }
}

impl Case {
    /// What is not as wanted.
    fn failure(&self, given: Option<&Snapshot>) -> Option<String> {
        let own = match (&self.policy, &self.rego) {
            (None, None) => None,
            _ => Some(self.compile()),
        };
        match (own, self.want) {
            (Some(Err(rejected)), Want::Reject) => self.differs(&rejected.to_string()),
            (Some(Err(rejected)), Want::Allow | Want::Deny) => Some(format!("the policy is refused: {rejected}")),
            (None | Some(Ok(_)), Want::Reject) => Some("wanted reject, but the policy is accepted".to_owned()),
            (None, Want::Allow | Want::Deny) => match given {
                Some(given) => self.judged(given),
                None => Some("there is no policy to ask".to_owned()),
            },
            (Some(Ok(own)), Want::Allow | Want::Deny) => self.judged(&own),
        }
    }

    fn compile(&self) -> Result<Snapshot, Rejected> {
        let policy = Policy::parse(self.policy.as_slice())?;
        Snapshot::compile(&policy, self.rego.as_slice(), Generation::FIRST, Posture::Enforce)
    }

    fn judged(&self, snapshot: &Snapshot) -> Option<String> {
        match (self.want, Answer::to(self.input.as_ref()?, snapshot)) {
            (Want::Allow, Answer::Allow { endpoint, rule, would }) => self.allowance_differs(&endpoint, rule, would),
            (Want::Allow, Answer::Deny(d)) => Some(format!("wanted allow, got deny ({}): {}", d.reason, d.detail)),
            (_, Answer::Allow { endpoint, rule, .. }) => {
                let by = rule.map(|rule| format!(", {rule}")).unwrap_or_default();
                Some(format!("wanted deny, got allow (endpoint `{endpoint}`{by})"))
            }
            (_, Answer::Deny(denial)) => self.denial_differs(&denial),
        }
    }

    fn allowance_differs(&self, got: &str, rule: Option<String>, would: Option<Denial>) -> Option<String> {
        if let Some(want) = self.endpoint.as_deref().filter(|want| *want != got) {
            return Some(format!("allowed by endpoint `{got}`, not `{want}`"));
        }
        let would = would.map(|denial| denial.reason);
        match (self.would, would) {
            (want, got) if want == got => self.rule_differs(rule.as_deref().unwrap_or("no rule")),
            (_, Some(got)) => Some(format!("would be denied for {got}")),
            (_, None) => Some("would not be denied".to_owned()),
        }
    }

    fn rule_differs(&self, got: &str) -> Option<String> {
        let want = self.rule.as_deref().filter(|want| got != *want && !got.ends_with(&format!(".{want}")))?;
        Some(format!("decided by {got}, not {want}"))
    }

    fn denial_differs(&self, denial: &Denial) -> Option<String> {
        match self.reason.filter(|want| *want != denial.reason) {
            Some(want) => Some(format!("denied for {}, not {want}", denial.reason)),
            None => self.rule_differs(&denial.rule).or_else(|| self.differs(&denial.detail)),
        }
    }

    fn differs(&self, text: &str) -> Option<String> {
        let want = self.message.as_deref().filter(|part| !text.contains(part))?;
        Some(format!("the message does not hold {}: {text}", crate::diagnostic::shown(want)))
    }
}

#[cfg(test)]
mod tests;
