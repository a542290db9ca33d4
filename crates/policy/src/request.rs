//! One request on a permitted connection: rules narrowed, Rego asked, the verdict remembered.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use quick_cache::{Equivalent, sync::Cache};
use stockade_l7::Operation;
use stockade_types::Reason;

use crate::{
    custom::Opinion,
    decision::{Denial, Intent, Mode, Permit, Request, RequestPermit, RequestVerdict},
    denial, facts, input,
    matcher::{self, Matcher, Rows, View},
    model::Endpoint,
    rego::EngineError,
    snapshot::{Posture, Snapshot, reason, word},
};

/// Verdicts of requests that are remembered, and the most bytes of text by which one is: the command chooses what it
/// asks for, so this bounds what asking can cost in memory. What is longer is decided each time.
const CACHED: usize = 2_048;
const MAX_KEY: usize = 1_024;
/// Most operations of one message. Each is held against each rule.
const MAX_OPERATIONS: usize = 128;

/// Remembered verdicts.
#[derive(Debug)]
pub(crate) struct Requests(Cache<Key, Outcome>);

impl Requests {
    pub(crate) fn new() -> Self {
        Self(Cache::new(CACHED))
    }

    pub(crate) fn remembered(&self) -> (u64, u64) {
        (self.0.hits(), self.0.misses())
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A verdict without what only the permit adds.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Allow { rule: Option<Arc<str>>, would_deny: Option<Arc<Denial>> },
    Deny(Arc<Denial>),
}

/// Everything that the verdict of a request depends on.
#[derive(Debug, Clone)]
struct Key {
    endpoint: u32,
    /// Only user modules look at it.
    intent: Option<Intent>,
    request: Request,
}

/// The same, borrowed.
#[derive(PartialEq, Eq, Hash)]
struct Asked<'a> {
    endpoint: u32,
    intent: Option<&'a Intent>,
    method: &'a str,
    path: &'a str,
    query: &'a [(String, String)],
    /// Empty where nothing looks at them.
    headers: &'a [(String, String)],
    operations: &'a [Operation],
}

impl Key {
    fn asked(&self) -> Asked<'_> {
        let Request { method, path, query, headers, operations } = &self.request;
        Asked { endpoint: self.endpoint, intent: self.intent.as_ref(), method, path, query, headers, operations }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.asked().hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.asked() == other.asked()
    }
}

impl Eq for Key {}

impl Equivalent<Key> for Asked<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self == key.asked()
    }
}

impl Asked<'_> {
    /// Bytes of text.
    fn size(&self) -> usize {
        let pairs = |list: &[(String, String)]| list.iter().map(|(k, v)| k.len() + v.len() + 48).sum::<usize>();
        let operations = self.operations.iter().map(|o| 96 + facts::size(o)).sum::<usize>();
        self.method.len() + self.path.len() + pairs(self.query) + pairs(self.headers) + operations
    }

    fn owned(&self) -> Key {
        let request = Request {
            method: self.method.to_owned(),
            path: self.path.to_owned(),
            query: self.query.to_vec(),
            headers: self.headers.to_vec(),
            operations: self.operations.to_vec(),
        };
        Key { endpoint: self.endpoint, intent: self.intent.cloned(), request }
    }
}

impl Snapshot {
    /// Decides a request on a connection that this very snapshot permits: after a reload the connection is asked about
    /// again first, so that a verdict is of one generation.
    #[must_use]
    pub fn authorize_request(&self, permit: &Permit, request: &Request) -> RequestVerdict {
        let allowed =
            |rule, would_deny| RequestVerdict::Allow(RequestPermit { permit: permit.clone(), rule, would_deny });
        let Some((at, endpoint)) = self.endpoint_of(permit) else {
            return match self.learn.gave(&permit.terms) {
                true => allowed(None, None),
                false => RequestVerdict::Deny(self.stale()),
            };
        };
        match self.judge(permit, (at, endpoint), request) {
            Ok(Outcome::Allow { rule, would_deny }) => allowed(rule, would_deny),
            Ok(Outcome::Deny(denial)) => RequestVerdict::Deny(Arc::unwrap_or_clone(denial)),
            // Not remembered: the next question may be answered.
            Err(error) => RequestVerdict::Deny(self.engine_error(&error)),
        }
    }

    /// Decides the opening of a WebSocket on an endpoint whose messages are judged one by one: what rules say of its
    /// path, query and fields holds for it too, and user modules see them.
    #[must_use]
    pub fn authorize_socket(&self, permit: &Permit, request: &Request) -> RequestVerdict {
        let (endpoint, matcher) = match self.endpoint_of(permit).map(|(at, e)| (e, self.matchers.get(at as usize))) {
            Some((e, Some(m))) if matches!(e.protocol, crate::Protocol::Graphql | crate::Protocol::JsonRpc) => (e, m),
            _ => return RequestVerdict::Deny(self.stale()),
        };
        let intent = self.seen_by_modules(permit);
        let rows = matcher.opening(&View::new(request));
        match self.decide_request((endpoint, intent.as_ref()), request, rows) {
            Ok(Outcome::Allow { rule, would_deny }) => {
                RequestVerdict::Allow(RequestPermit { permit: permit.clone(), rule, would_deny })
            }
            Ok(Outcome::Deny(denial)) => RequestVerdict::Deny(Arc::unwrap_or_clone(denial)),
            Err(error) => RequestVerdict::Deny(self.engine_error(&error)),
        }
    }

    /// The connection as user modules see it; `None` where there are none.
    fn seen_by_modules(&self, permit: &Permit) -> Option<Intent> {
        self.custom.is_some().then(|| Intent {
            door: permit.door,
            host: permit.host.clone(),
            port: permit.port,
            caller: permit.caller.clone(),
        })
    }

    /// The endpoint that a permit of this snapshot is of.
    pub(crate) fn endpoint_of(&self, permit: &Permit) -> Option<(u32, &Endpoint)> {
        let at = self.endpoint_at(&permit.terms.endpoint)?;
        let own = self.terms.get(at as usize)?;
        let endpoint = self.endpoints.get(at as usize)?;
        Arc::ptr_eq(own, &permit.terms).then_some((at, endpoint))
    }

    fn judge(
        &self,
        permit: &Permit,
        (at, endpoint): (u32, &Endpoint),
        request: &Request,
    ) -> Result<Outcome, EngineError> {
        let matcher = self.matchers.get(at as usize).ok_or(EngineError::Unusable)?;
        let intent = self.seen_by_modules(permit);
        let Request { method, path, query, headers, operations } = request;
        let headers = if matcher.headers || intent.is_some() { headers } else { [].as_slice() };
        let asked = Asked { endpoint: at, intent: intent.as_ref(), method, path, query, headers, operations };
        if let Some(outcome) = self.requests.0.get(&asked) {
            return Ok(outcome);
        }
        if operations.len() > MAX_OPERATIONS {
            return Ok(Outcome::Deny(Arc::new(self.too_many())));
        }
        let view = View::new(request);
        let outcome = self.decide_request((endpoint, intent.as_ref()), request, matcher.candidates(&view))?;
        if asked.size() <= MAX_KEY {
            self.requests.0.insert(asked.owned(), outcome.clone());
        }
        Ok(outcome)
    }

    /// The decision proper: base policy, then user modules, then mode and posture.
    pub(crate) fn decide_request(
        &self,
        (endpoint, intent): (&Endpoint, Option<&Intent>),
        request: &Request,
        rows: Rows,
    ) -> Result<Outcome, EngineError> {
        let answer = self.request.eval(matcher::document(endpoint.protocol, request, rows))?;
        let denial = match word(&answer, "effect")?.as_str() {
            "allow" => {
                let rule = answer["rule"].as_string().ok().map(|rule| Arc::from(&**rule));
                match self.custom_on_request(endpoint, intent, request)? {
                    None => return Ok(Outcome::Allow { rule, would_deny: None }),
                    Some(denial) => denial,
                }
            }
            "deny" => match reason(&answer)? {
                Reason::PolicyDeny => denial::by_rule(self.generation, endpoint, request, word(&answer, "rule")?),
                Reason::L7 => denial::no_rule(self.generation, (endpoint, self.matcher_of(endpoint)), request),
                _ => return Err(EngineError::Unusable),
            },
            _ => return Err(EngineError::Unusable),
        };
        Ok(self.enforced(endpoint, denial))
    }

    /// What a denial comes to under the endpoint's mode and the posture.
    fn enforced(&self, endpoint: &Endpoint, denial: Denial) -> Outcome {
        let denial = Arc::new(denial);
        match (endpoint.mode, self.posture) {
            (Mode::Enforce, Posture::Enforce) => Outcome::Deny(denial),
            (Mode::Audit, _) | (_, Posture::Learn { .. }) => Outcome::Allow { rule: None, would_deny: Some(denial) },
        }
    }

    fn matcher_of(&self, endpoint: &Endpoint) -> Option<&Matcher> {
        self.endpoint_at(&endpoint.name).and_then(|at| self.matchers.get(at as usize))
    }

    fn custom_on_request(
        &self,
        endpoint: &Endpoint,
        intent: Option<&Intent>,
        request: &Request,
    ) -> Result<Option<Denial>, EngineError> {
        let (Some(custom), Some(intent)) = (&self.custom, intent) else { return Ok(None) };
        let what = denial::shown(request);
        Ok(match custom.opinion(&input::request(intent, endpoint, request))? {
            Opinion::Silent => None,
            Opinion::Deny(messages) => Some(denial::by_custom(self.generation, &what, &messages)),
            Opinion::Ask(messages) => Some(denial::asked(self.generation, &what, &messages)),
        })
    }

    fn too_many(&self) -> Denial {
        Denial {
            reason: Reason::Limit,
            rule: "operations".to_owned(),
            detail: format!("more than {MAX_OPERATIONS} operations in one message"),
            suggestion: None,
            generation: self.generation,
        }
    }

    fn stale(&self) -> Denial {
        Denial {
            reason: Reason::StaleGeneration,
            rule: "generation".to_owned(),
            detail: "the connection was permitted by another policy than the one in force".to_owned(),
            suggestion: None,
            generation: self.generation,
        }
    }
}

#[cfg(test)]
mod tests;
