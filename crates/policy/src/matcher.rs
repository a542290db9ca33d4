//! Which rules of an endpoint could match a request: a narrowing before Rego, and the patterns that Rego would be slow
//! to try. It says of each rule which of its conditions hold; what follows from that, Rego decides.

mod close;

pub(crate) use close::Close;

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
};

use regorus::Value;
use stockade_l7::Operation;

use crate::{
    decision::{Protocol, Request},
    explain::RuleExplained,
    facts,
    glob::{self, Glob},
    model::Endpoint,
    rule::{Key, Rule},
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
    /// Whether requests are judged as they are, not by operations.
    plain: bool,
}

/// Rules of one effect, by what their paths begin with.
#[derive(Debug)]
struct Side {
    effect: Effect,
    rules: Vec<Compiled>,
    /// By the segments before the first pattern, joined. Two different beginnings may join alike where a segment has an
    /// encoded slash; that only leaves a rule in.
    beginnings: HashMap<Box<str>, Vec<u32>>,
    /// Segments of the longest beginning.
    longest: usize,
}

#[derive(Debug)]
struct Compiled {
    rule: Rule,
    id: Value,
    methods: Value,
}

/// What the base policy is told about the rules.
pub(crate) struct Rows {
    /// `None`: the endpoint has no `allow`.
    allow: Option<Table>,
    deny: Table,
    /// Whether they are about the opening of a WebSocket, which has no operations yet.
    opening: bool,
}

/// Rules of one side, and for each operation what it is to them.
#[derive(Default)]
struct Table {
    rows: Vec<Value>,
    operations: Vec<Vec<Value>>,
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
            plain: endpoint.protocol == Protocol::Http,
            headers: rules.deny.iter().chain(rules.allow.iter().flatten()).any(looks),
            allow: rules.allow.as_ref().map(|list| Side::new(Effect::Allow, list)),
            deny: Side::new(Effect::Deny, &rules.deny),
        }
    }

    /// The rules that make the verdict. Of those that match the same request or operation one is as good as another,
    /// and the first is named.
    pub(crate) fn candidates(&self, view: &View<'_>) -> Rows {
        let operations = self.operations(view);
        Rows {
            allow: self.allow.as_ref().map(|side| side.narrowed(view, operations)),
            deny: self.deny.narrowed(view, operations),
            opening: false,
        }
    }

    /// The rules that make the verdict on the opening of a WebSocket whose messages are judged one by one: it may be
    /// opened where a message could be allowed, and not where every message is denied.
    pub(crate) fn opening(&self, view: &View<'_>) -> Rows {
        Rows {
            allow: self.allow.as_ref().map(|side| side.first(view, |_| true)),
            deny: self.deny.first(view, |rule| rule.operation.is_empty() && rule.arguments.is_empty()),
            opening: true,
        }
    }

    fn operations<'r>(&self, view: &View<'r>) -> &'r [Operation] {
        if self.plain { &[] } else { &view.request.operations }
    }

    /// Every rule and what keeps it from applying, those of `deny` first.
    pub(crate) fn explain(&self, view: &View<'_>) -> Vec<RuleExplained> {
        let sides = std::iter::once(&self.deny).chain(&self.allow);
        let rules = sides.flat_map(|side| side.rules.iter().map(|rule| (side.effect, &rule.rule)));
        rules
            .map(|(effect, rule)| RuleExplained { rule: rule.id.to_string(), unfit: rule.unfit(effect, view) })
            .collect()
    }

    /// Every rule: what Rego would be asked without the narrowing.
    #[cfg(test)]
    pub(crate) fn all(&self, view: &View<'_>) -> Rows {
        let operations = self.operations(view);
        Rows {
            allow: self.allow.as_ref().map(|side| side.whole(view, operations)),
            deny: self.deny.whole(view, operations),
            opening: false,
        }
    }
}

impl Side {
    fn new(effect: Effect, rules: &[Rule]) -> Self {
        let mut side = Self { effect, rules: Vec::new(), beginnings: HashMap::new(), longest: 0 };
        for (at, rule) in (0u32..).zip(rules) {
            match &rule.paths {
                Some(paths) => paths.iter().for_each(|path| side.begin(path.beginning(), at)),
                None => side.begin(Vec::new(), at),
            }
            let methods = rule.methods.iter().flatten().map(|m| Value::from(&**m)).collect::<BTreeSet<_>>();
            side.rules.push(Compiled { id: (&*rule.id).into(), methods: methods.into(), rule: rule.clone() });
        }
        side
    }

    fn begin(&mut self, segments: Vec<&str>, rule: u32) {
        self.longest = self.longest.max(segments.len());
        let list = self.beginnings.entry(segments.join("/").into()).or_default();
        // A rule may begin two of its paths alike; it is one row.
        if list.last() != Some(&rule) {
            list.push(rule);
        }
    }

    /// Rules whose paths could begin like the request's, in the order of the policy. A lookup costs one probe for each
    /// segment.
    fn near(&self, view: &View<'_>) -> Vec<u32> {
        let mut near = self.beginnings.get("").cloned().unwrap_or_default();
        let mut beginning = String::new();
        for (i, segment) in view.segments.iter().take(self.longest).enumerate() {
            if i > 0 {
                beginning.push('/');
            }
            beginning.push_str(segment);
            near.extend(self.beginnings.get(&*beginning).into_iter().flatten());
        }
        near.sort_unstable();
        near.dedup();
        near
    }
}

impl Side {
    /// The first rule that fits, operations aside, of those that are asked for.
    fn first(&self, view: &View<'_>, asked: impl Fn(&Rule) -> bool) -> Table {
        let near = self.near(view);
        let mut rules = near.iter().filter_map(|at| self.rules.get(*at as usize));
        let first = rules.find(|c| asked(&c.rule) && c.rule.fits(self.effect, view));
        Table { rows: first.map(|c| c.row(self.effect, view)).into_iter().collect(), operations: Vec::new() }
    }

    fn narrowed(&self, view: &View<'_>, operations: &[Operation]) -> Table {
        if operations.is_empty() {
            return self.first(view, |_| true);
        }
        let mut table = Table::default();
        let near = self.near(view);
        let near = near.iter().filter_map(|at| self.rules.get(*at as usize));
        let fitting: Vec<&Compiled> = near.filter(|c| c.rule.fits(self.effect, view)).collect();
        let mut used: Vec<usize> = Vec::new();
        for operation in operations {
            let matching = fitting.iter().position(|c| c.rule.matches_operation(self.effect, operation));
            let pair = matching.and_then(|at| {
                let place = used.iter().position(|u| *u == at).unwrap_or_else(|| {
                    used.push(at);
                    used.len() - 1
                });
                Some(fitting.get(at)?.rule.operation(self.effect, operation, place))
            });
            table.operations.push(pair.into_iter().collect());
        }
        table.rows = used.iter().filter_map(|at| Some(fitting.get(*at)?.row(self.effect, view))).collect();
        table
    }

    #[cfg(test)]
    fn whole(&self, view: &View<'_>, operations: &[Operation]) -> Table {
        let pairs =
            |o: &Operation| self.rules.iter().enumerate().map(|(at, c)| c.rule.operation(self.effect, o, at)).collect();
        Table {
            rows: self.rules.iter().map(|c| c.row(self.effect, view)).collect(),
            operations: operations.iter().map(pairs).collect(),
        }
    }
}

impl Compiled {
    /// A row of `input.allow` or `input.deny`.
    fn row(&self, effect: Effect, view: &View<'_>) -> Value {
        let rule = &self.rule;
        let mut row = vec![
            ("id", self.id.clone()),
            ("path", rule.path_matches(view).into()),
            ("query", rule.query_fits(effect, view).into()),
            ("headers", rule.headers_fit(effect, view).into()),
        ];
        if rule.methods.is_some() {
            row.push(("methods", self.methods.clone()));
        }
        crate::input::fields(row)
    }
}

impl Rule {
    fn path_matches(&self, view: &View<'_>) -> bool {
        self.paths.as_ref().is_none_or(|paths| paths.iter().any(|p| p.matches(&view.segments)))
    }

    /// A parameter that is not there breaks no promise about its values.
    fn query_fits(&self, effect: Effect, view: &View<'_>) -> bool {
        let given = &view.request.query;
        self.query.iter().all(|(name, globs)| holds(effect, globs, &values(given, name), true))
    }

    /// A field that is named must be there. Many origins take `_` in names for `-`: a field so written says as much
    /// against a request, and nothing for it.
    fn headers_fit(&self, effect: Effect, view: &View<'_>) -> bool {
        let given = &view.request.headers;
        self.headers.iter().all(|(name, globs)| {
            let alike = given.iter().filter(|(key, _)| same_field(key, name)).map(|(_, value)| value.as_str());
            let there = effect == Effect::Deny || given.iter().any(|(key, _)| **key == **name);
            there && holds(effect, globs, &alike.collect::<Vec<_>>(), false)
        })
    }

    /// The keys that do not fit. Of the operations those are named of which one does not fit.
    fn unfit(&self, effect: Effect, view: &View<'_>) -> Vec<String> {
        let Request { method, operations, .. } = view.request;
        let mut unfit = Vec::new();
        let mut note = |fits: bool, key: &str| {
            if !fits && !unfit.iter().any(|k| k == key) {
                unfit.push(key.to_owned());
            }
        };
        note(self.methods.as_ref().is_none_or(|m| m.contains(method.as_str())), "methods");
        note(self.path_matches(view), "paths");
        note(self.query_fits(effect, view), "query");
        note(self.headers_fit(effect, view), "headers");
        for operation in operations {
            for (key, globs) in &self.operation {
                note(holds(effect, globs, &facts::values(operation, *key), false), key.word());
            }
            note(self.arguments_fit(effect, operation), "arguments");
        }
        unfit
    }

    /// Which of the conditions about an operation hold. What the rule does not name holds. `place`: its row.
    fn operation(&self, effect: Effect, operation: &Operation, place: usize) -> Value {
        let mut facts: Vec<(&str, Value)> = vec![("rule", place.into())];
        facts.extend(Key::ALL.iter().map(|key| (key.word(), Value::from(true))));
        for (key, globs) in &self.operation {
            let fits = holds(effect, globs, &facts::values(operation, *key), false);
            facts.iter_mut().filter(|(word, _)| *word == key.word()).for_each(|(_, fact)| *fact = fits.into());
        }
        facts.push(("arguments", self.arguments_fit(effect, operation).into()));
        crate::input::fields(facts)
    }

    fn arguments_fit(&self, effect: Effect, operation: &Operation) -> bool {
        self.arguments.iter().all(|(path, globs)| holds(effect, globs, &facts::argument(operation, path), false))
    }

    fn matches_operation(&self, effect: Effect, operation: &Operation) -> bool {
        self.keys_fit(effect, operation) && self.arguments_fit(effect, operation)
    }

    fn keys_fit(&self, effect: Effect, operation: &Operation) -> bool {
        let fits = |(key, globs): &(Key, Vec<Glob>)| holds(effect, globs, &facts::values(operation, *key), false);
        self.operation.iter().all(fits)
    }

    /// Whether it fits the request, operations aside.
    fn fits(&self, effect: Effect, view: &View<'_>) -> bool {
        self.methods.as_ref().is_none_or(|m| m.contains(view.request.method.as_str()))
            && self.path_matches(view)
            && self.query_fits(effect, view)
            && self.headers_fit(effect, view)
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

/// Whether two names of fields are one to some origins.
fn same_field(key: &str, name: &str) -> bool {
    let dashed = |b: u8| if b == b'_' { b'-' } else { b };
    key.len() == name.len() && key.bytes().zip(name.bytes()).all(|(a, b)| dashed(a) == dashed(b))
}

/// Every value of a name.
fn values<'p>(pairs: &'p [(String, String)], name: &str) -> Vec<&'p str> {
    pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
}

/// The document of the base policy for a request.
pub(crate) fn document(protocol: Protocol, request: &Request, rows: Rows) -> Value {
    let Rows { allow, deny, opening } = rows;
    let mut fields = vec![
        ("version", crate::input::VERSION.into()),
        ("kind", "request".into()),
        ("protocol", crate::input::protocol(protocol).into()),
        ("request", object([("method", request.method.as_str().into()), ("path", request.path.as_str().into())])),
    ];
    if opening {
        fields.push(("opening", true.into()));
    } else if protocol != Protocol::Http {
        let mut pairs = (allow.as_ref().map(|t| t.operations.iter()), deny.operations.iter());
        let of = |o: &Operation| {
            let mut about = vec![("protocol", facts::protocol(o).into())];
            about.extend(pairs.0.as_mut().and_then(Iterator::next).map(|p| ("allow", p.clone().into())));
            about.extend(pairs.1.next().map(|p| ("deny", p.clone().into())));
            crate::input::fields(about)
        };
        fields.push(("operations", request.operations.iter().map(of).collect::<Vec<_>>().into()));
    }
    fields.push(("deny", deny.rows.into()));
    fields.extend(allow.map(|table| ("allow", table.rows.into())));
    crate::input::fields(fields)
}
