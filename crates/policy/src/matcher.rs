//! Which rules of an endpoint could match a request: a narrowing before Rego, and the patterns that Rego would be slow
//! to try. It says of each rule which of its conditions hold; what follows from that, Rego decides.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
};

use regorus::Value;
use stockade_l7::Operation;

use crate::{
    decision::{Protocol, Request},
    facts,
    glob::{self, Glob, PathGlob},
    model::Endpoint,
    rule::{Key, Named, Rule},
    snapshot::object,
};

/// Whether a rule takes away or gives: of several values it must hold all to give, and one to take away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Allow,
    Deny,
}

/// The rules of one endpoint.
#[derive(Debug)]
pub(crate) struct Matcher {
    allow: Option<Side>,
    deny: Side,
    /// Whether a rule looks at header fields.
    pub(crate) headers: bool,
}

/// Rules of one effect, by the first segment of their paths.
#[derive(Debug)]
struct Side {
    effect: Effect,
    rules: Vec<Compiled>,
    first: HashMap<Box<str>, Vec<u32>>,
    anywhere: Vec<u32>,
}

#[derive(Debug)]
struct Compiled {
    rule: Rule,
    id: Value,
    methods: Value,
}

/// Rows for the base policy.
pub(crate) struct Rows {
    /// `None`: the endpoint has no `allow`.
    pub(crate) allow: Option<Value>,
    pub(crate) deny: Value,
}

/// A request and what every rule looks at.
pub(crate) struct View<'r> {
    request: &'r Request,
    segments: Vec<Cow<'r, str>>,
}

impl<'r> View<'r> {
    pub(crate) fn new(request: &'r Request) -> Self {
        Self { request, segments: glob::split(&request.path) }
    }
}

impl Matcher {
    pub(crate) fn new(endpoint: &Endpoint) -> Self {
        let rules = &endpoint.rules;
        let looks = |rule: &Rule| !rule.headers.is_empty();
        Self {
            headers: rules.deny.iter().chain(rules.allow.iter().flatten()).any(looks),
            allow: rules.allow.as_ref().map(|list| Side::new(Effect::Allow, list)),
            deny: Side::new(Effect::Deny, &rules.deny),
        }
    }

    /// Rows of the rules that could match.
    pub(crate) fn candidates(&self, view: &View<'_>) -> Rows {
        let rows = |side: &Side| -> Value {
            let fits = |rule: &&Compiled| rule.rule.may_match(view);
            side.near(view)
                .into_iter()
                .filter_map(|at| side.rules.get(at as usize))
                .filter(fits)
                .map(|rule| rule.row(side.effect, view))
                .collect::<Vec<_>>()
                .into()
        };
        Rows { allow: self.allow.as_ref().map(rows), deny: rows(&self.deny) }
    }

    /// Rows of every rule: what Rego would be asked without the narrowing.
    #[cfg(test)]
    pub(crate) fn all(&self, view: &View<'_>) -> Rows {
        let rows = |side: &Side| side.rules.iter().map(|rule| rule.row(side.effect, view)).collect::<Vec<_>>().into();
        Rows { allow: self.allow.as_ref().map(rows), deny: rows(&self.deny) }
    }
}

impl Side {
    fn new(effect: Effect, rules: &[Rule]) -> Self {
        let mut side = Self { effect, rules: Vec::new(), first: HashMap::new(), anywhere: Vec::new() };
        for (at, rule) in (0u32..).zip(rules) {
            let firsts: Option<Vec<&str>> = rule.paths.iter().flatten().map(PathGlob::first_literal).collect();
            match firsts {
                Some(firsts) if rule.paths.is_some() => {
                    for first in firsts {
                        let list = side.first.entry(first.into()).or_default();
                        // A rule may begin two of its paths alike; it is one row.
                        if list.last() != Some(&at) {
                            list.push(at);
                        }
                    }
                }
                _ => side.anywhere.push(at),
            }
            let methods = rule.methods.iter().flatten().map(|m| Value::from(&**m)).collect::<BTreeSet<_>>();
            side.rules.push(Compiled { id: (&*rule.id).into(), methods: methods.into(), rule: rule.clone() });
        }
        side
    }

    /// Rules whose paths could begin like the request's, in the order of the policy.
    fn near(&self, view: &View<'_>) -> Vec<u32> {
        let mut near = self.anywhere.clone();
        if let Some(list) = view.segments.first().and_then(|first| self.first.get(&**first)) {
            near.extend(list);
            near.sort_unstable();
        }
        near
    }
}

impl Compiled {
    /// A row of `input.allow` or `input.deny`.
    fn row(&self, effect: Effect, view: &View<'_>) -> Value {
        let rule = &self.rule;
        let all = |named: &[Named], given: &[(String, String)], absent: bool| {
            named.iter().all(|(name, globs)| holds(effect, globs, &values(given, name), absent))
        };
        let mut row = vec![
            ("id", self.id.clone()),
            ("path", rule.path_matches(view).into()),
            // A parameter that is not there breaks no promise about its values; a header field must be there.
            ("query", all(&rule.query, &view.request.query, true).into()),
            ("headers", all(&rule.headers, &view.request.headers, false).into()),
        ];
        if rule.methods.is_some() {
            row.push(("methods", self.methods.clone()));
        }
        if !view.request.operations.is_empty() {
            let operations = view.request.operations.iter().map(|o| rule.operation(effect, o));
            row.push(("operations", operations.collect::<Vec<_>>().into()));
        }
        crate::input::fields(row)
    }
}

impl Rule {
    fn path_matches(&self, view: &View<'_>) -> bool {
        self.paths.as_ref().is_none_or(|paths| paths.iter().any(|p| p.matches(&view.segments)))
    }

    /// Which of the conditions about an operation hold. What the rule does not name holds.
    fn operation(&self, effect: Effect, operation: &Operation) -> Value {
        let mut facts: Vec<(&str, Value)> = Key::ALL.iter().map(|key| (key.word(), true.into())).collect();
        for (key, globs) in &self.operation {
            let fits = holds(effect, globs, &facts::values(operation, *key), false);
            facts.iter_mut().filter(|(word, _)| *word == key.word()).for_each(|(_, fact)| *fact = fits.into());
        }
        let arguments = |(path, globs): &Named| holds(effect, globs, &facts::argument(operation, path), false);
        facts.push(("arguments", self.arguments.iter().all(arguments).into()));
        crate::input::fields(facts)
    }

    /// What most rules fail by, and is quickly seen.
    fn may_match(&self, view: &View<'_>) -> bool {
        self.methods.as_ref().is_none_or(|m| m.contains(view.request.method.as_str())) && self.path_matches(view)
    }
}

/// Whether values fit patterns: all of them to allow, one of them to deny. `absent`: what to say of none to allow.
fn holds(effect: Effect, globs: &[Glob], values: &[&str], absent: bool) -> bool {
    let fits = |value: &&str| globs.iter().any(|g| g.matches(value));
    match effect {
        Effect::Allow => (absent || !values.is_empty()) && values.iter().all(fits),
        Effect::Deny => values.iter().any(fits),
    }
}

/// Every value of a name.
fn values<'p>(pairs: &'p [(String, String)], name: &str) -> Vec<&'p str> {
    pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
}

/// The document of the base policy for a request.
pub(crate) fn document(protocol: Protocol, request: &Request, rows: Rows) -> Value {
    let mut fields = vec![
        ("version", crate::input::VERSION.into()),
        ("kind", "request".into()),
        ("protocol", crate::input::protocol(protocol).into()),
        ("request", object([("method", request.method.as_str().into()), ("path", request.path.as_str().into())])),
        ("deny", rows.deny),
    ];
    fields.extend(rows.allow.map(|rows| ("allow", rows)));
    if protocol != Protocol::Http {
        let of = |o: &Operation| object([("protocol", facts::protocol(o).into())]);
        fields.push(("operations", request.operations.iter().map(of).collect::<Vec<_>>().into()));
    }
    crate::input::fields(fields)
}
