//! How near a denied request comes to what `allow` covers: for a denial that says what to change.

use std::collections::BTreeSet;

use stockade_l7::Operation;

use super::{Effect, Matcher, View, holds, values};
use crate::{
    decision::Request,
    facts,
    rule::{Named, Rule},
};

/// The rules of `allow` whose paths cover a request, in the order of the policy. Found once: the command chooses how many
/// operations it asks for in one message.
#[derive(Debug)]
pub(crate) struct Close<'m>(Vec<&'m Rule>);

/// A rule of `allow` that covers a request but for values that it looks at.
#[derive(Debug)]
pub(crate) struct Missed<'m> {
    pub(crate) rule: &'m Rule,
    /// What does not fit: `query parameter q`, `header accept`, `argument path`.
    pub(crate) values: Vec<String>,
}

impl Matcher {
    pub(crate) fn close(&self, request: &Request) -> Close<'_> {
        let Some(side) = &self.allow else { return Close(Vec::new()) };
        let view = View::new(request);
        let near = side.near(&view).into_iter().filter_map(|at| side.rules.get(at as usize));
        Close(near.map(|c| &c.rule).filter(|rule| rule.path_matches(&view)).collect())
    }
}

impl<'m> Close<'m> {
    /// The first rule that covers everything but values.
    pub(crate) fn missed(&self, request: &Request) -> Option<Missed<'m>> {
        let missed = |rule: &&'m Rule| {
            let values = rule.missed(request).filter(|values| !values.is_empty())?;
            Some(Missed { rule, values })
        };
        self.0.iter().find_map(missed)
    }

    /// The query parameters that rules for this path look at.
    pub(crate) fn query(&self) -> BTreeSet<&'m str> {
        names(self.0.iter().flat_map(|rule| &rule.query))
    }

    /// The arguments that rules for such an operation look at.
    pub(crate) fn arguments(&self, operation: &Operation) -> BTreeSet<&'m str> {
        let rules = self.0.iter().filter(|rule| !rule.arguments.is_empty() && rule.keys_fit(Effect::Allow, operation));
        names(rules.flat_map(|rule| &rule.arguments))
    }
}

impl Rule {
    /// The values that do not fit; `None` where something else does not either.
    fn missed(&self, request: &Request) -> Option<Vec<String>> {
        let method = self.methods.as_ref().is_none_or(|m| m.contains(request.method.as_str()));
        if !method || !request.operations.iter().all(|o| self.keys_fit(Effect::Allow, o)) {
            return None;
        }
        let unfit = |list: &[Named], what: &str, fits: &dyn Fn(&Named) -> bool| -> Vec<String> {
            list.iter().filter(|named| !fits(named)).map(|(name, _)| format!("{what} `{name}`")).collect()
        };
        let query = unfit(&self.query, "query parameter", &|(name, globs)| {
            holds(Effect::Allow, globs, &values(&request.query, name), true)
        });
        let headers = unfit(&self.headers, "header", &|(name, globs)| {
            holds(Effect::Allow, globs, &values(&request.headers, name), false)
        });
        let arguments = unfit(&self.arguments, "argument", &|(path, globs)| {
            request.operations.iter().all(|o| holds(Effect::Allow, globs, &facts::argument(o, path), false))
        });
        Some([query, headers, arguments].concat())
    }
}

fn names<'r>(list: impl Iterator<Item = &'r Named>) -> BTreeSet<&'r str> {
    list.map(|(name, _)| &**name).collect()
}
