//! A policy compiled: immutable, shared by every connection, replaced as a whole by a reload.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use quick_cache::sync::Cache;
use regorus::Value;
use stockade_types::{Generation, Host, HostName, Port, Reason};

use crate::{
    caller::{Binaries, Binary, Callers},
    custom::{Custom, Opinion},
    decision::{Denial, Intent, Mode, NameVerdict, Permit, Protocol, Terms, TlsMode, Verdict},
    denial,
    diagnostic::{Diagnostic, Rejected, Source},
    index::{Candidate, HostIndex},
    input::{self, Parts},
    matcher::Matcher,
    model::{Endpoint, Policy},
    rego::{EngineError, Program},
    request::Requests,
};

/// The base policy. Part of the program: no file of the operator's or the command's can replace it.
const CONNECT: &[(&str, &str)] = &[("connect.rego", include_str!("../../../policies/base/connect.rego"))];
const CONNECT_DECISION: &str = "data.stockade.base.decision";
const REQUEST: &[(&str, &str)] = &[
    ("request.rego", include_str!("../../../policies/base/request.rego")),
    ("http.rego", include_str!("../../../policies/base/http.rego")),
    ("grpc.rego", include_str!("../../../policies/base/grpc.rego")),
    ("graphql.rego", include_str!("../../../policies/base/graphql.rego")),
    ("jsonrpc.rego", include_str!("../../../policies/base/jsonrpc.rego")),
    ("mcp.rego", include_str!("../../../policies/base/mcp.rego")),
];
const REQUEST_DECISION: &str = "data.stockade.request.decision";
/// Verdicts remembered. The command chooses what it asks for, so this bounds what asking can cost in memory.
const CACHED: usize = 2_048;

/// Whether denials are enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Posture {
    /// Denials deny.
    Enforce,
    /// What policy would deny is let through and reported as [`Permit::would_deny`]; reserved names and engine errors
    /// are denied all the same, and so is everything that destination and framing checks refuse.
    Learn {
        /// Whether TLS of what no endpoint covers ends at the door, so that its requests are seen.
        inspect: bool,
    },
}

/// A compiled policy.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) generation: Generation,
    pub(crate) posture: Posture,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) index: HostIndex,
    pub(crate) terms: Vec<Arc<Terms>>,
    pub(crate) learn: Learn,
    pub(crate) matchers: Vec<Matcher>,
    parts: Vec<Parts>,
    binaries: Binaries,
    by_name: HashMap<Arc<str>, u32>,
    ports: BTreeSet<u16>,
    digest: String,
    /// SHA-256 of the modules.
    pub(crate) modules: String,
    base: Program,
    pub(crate) request: Program,
    pub(crate) custom: Option<Custom>,
    cache: Cache<Intent, Outcome>,
    pub(crate) requests: Requests,
}

/// A verdict without what only the intent adds: what the cache holds.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Allow { terms: Arc<Terms>, would_deny: Option<Arc<Denial>> },
    Deny(Arc<Denial>),
}

/// What the base policy says.
enum Decision {
    Allow(u32),
    Deny { rule: String, reason: Reason },
}

impl Snapshot {
    /// Compiles a policy with the text of the modules that it names.
    ///
    /// # Errors
    /// Modules that are missing, do not parse, are of another package, or call functions that are not functions of
    /// their input.
    pub fn compile(
        policy: &Policy,
        modules: &[Source],
        generation: Generation,
        posture: Posture,
    ) -> Result<Self, Rejected> {
        all_modules_given(policy, modules)?;
        let base = program(CONNECT, CONNECT_DECISION)?;
        let request = program(REQUEST, REQUEST_DECISION)?;
        let custom = Custom::compile(modules)?;
        let endpoints = policy.network.endpoints.clone();
        let mut shared = HashMap::new();
        let by_name = (0u32..).zip(&endpoints).map(|(at, e)| (Arc::from(e.name.as_str()), at)).collect();
        let ports = endpoints.iter().flat_map(|e| e.ports.iter().map(|p| p.get())).collect();
        let binaries = Binaries::new(endpoints.iter().filter_map(|e| e.callers.as_ref()));
        Ok(Self {
            generation,
            posture,
            index: HostIndex::new(&endpoints),
            terms: endpoints.iter().map(|e| Arc::new(terms(e, custom.is_some()))).collect(),
            learn: Learn::new(posture),
            parts: endpoints.iter().map(|e| Parts::new(e, &binaries, &mut shared)).collect(),
            matchers: endpoints.iter().map(Matcher::new).collect(),
            binaries,
            by_name,
            ports,
            modules: crate::parse::digest(modules),
            digest: crate::parse::hex(&combined(policy, modules)),
            base,
            request,
            custom,
            cache: Cache::new(CACHED),
            requests: Requests::new(),
            endpoints,
        })
    }

    /// Verdicts of connections and requests that were remembered, and those that had to be found.
    #[must_use]
    pub fn remembered(&self) -> (u64, u64) {
        let (hits, misses) = self.requests.remembered();
        (hits + self.cache.hits(), misses + self.cache.misses())
    }

    /// Decides a connection.
    #[must_use]
    pub fn authorize(&self, intent: &Intent) -> Verdict {
        if let Some(outcome) = self.cache.get(intent) {
            return self.verdict(intent, outcome);
        }
        match self.decide(intent, &self.index.candidates(&intent.host)) {
            Ok(outcome) => {
                self.cache.insert(intent.clone(), outcome.clone());
                self.verdict(intent, outcome)
            }
            // Not remembered: the next question may be answered.
            Err(error) => Verdict::Deny(self.engine_error(&error)),
        }
    }

    fn verdict(&self, intent: &Intent, outcome: Outcome) -> Verdict {
        match outcome {
            Outcome::Deny(denial) => Verdict::Deny(Arc::unwrap_or_clone(denial)),
            Outcome::Allow { terms, would_deny } => Verdict::Allow(Permit {
                generation: self.generation,
                door: intent.door,
                host: intent.host.clone(),
                port: intent.port,
                caller: intent.caller.clone(),
                terms,
                would_deny,
            }),
        }
    }

    /// Decides a name: known if some endpoint could allow a connection to it on some port.
    #[must_use]
    pub fn name(&self, name: &HostName) -> NameVerdict {
        let host = Host::Name(name.clone());
        if let Some(reserved) = denial::reserved_name(self.generation, &host) {
            return NameVerdict::Unknown(reserved);
        }
        match (self.index.knows(name), self.posture) {
            (Some(literal), _) => NameVerdict::Known { literal },
            (None, Posture::Learn { .. }) => NameVerdict::Known { literal: false },
            (None, Posture::Enforce) => NameVerdict::Unknown(denial::unknown_name(self, name)),
        }
    }

    /// Every port of every endpoint: where direct connections are worth catching.
    #[must_use]
    pub fn transparent_ports(&self) -> &BTreeSet<u16> {
        &self.ports
    }

    /// Names that the policy writes out: they have reserved synthetic addresses. In no particular order.
    pub fn literal_names(&self) -> impl Iterator<Item = &HostName> {
        self.index.literal_names()
    }

    /// The generation of this snapshot.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether denials are enforced.
    #[must_use]
    pub fn posture(&self) -> Posture {
        self.posture
    }

    /// SHA-256 of the policy's sources and modules, hexadecimal.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Every executable that an endpoint names, once: [`crate::model::Caller::matched`] holds places in it. Where it is
    /// empty, no verdict depends on who asks.
    #[must_use]
    pub fn binaries(&self) -> &[Binary] {
        self.binaries.all()
    }

    /// The place of an endpoint.
    pub(crate) fn endpoint_at(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// The numbers of what an endpoint names.
    pub(crate) fn ids(&self, callers: &Callers) -> Vec<u32> {
        self.binaries.ids(callers)
    }

    /// Whether an endpoint of this name exists.
    pub(crate) fn has_endpoint(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The decision proper: base policy, then user modules, then mode and posture.
    pub(crate) fn decide(&self, intent: &Intent, candidates: &[Candidate<'_>]) -> Result<Outcome, EngineError> {
        let rows = candidates.iter().filter_map(|c| Some(self.parts.get(c.endpoint as usize)?.candidate(c.pattern)));
        let document = input::document(intent, ("candidates", rows.collect::<Vec<_>>().into()));
        let at = match self.base_decision(document)? {
            Decision::Allow(at) => at,
            Decision::Deny { rule, reason } => {
                let denial = Arc::new(denial::by_base(self, intent, candidates, (rule, reason)));
                let learned = self.posture != Posture::Enforce && reason == Reason::NoPolicy;
                return Ok(match learned {
                    true => Outcome::Allow { terms: self.learn.terms(intent.port), would_deny: Some(denial) },
                    false => Outcome::Deny(denial),
                });
            }
        };
        let (Some(endpoint), Some(terms)) = (self.endpoints.get(at as usize), self.terms.get(at as usize)) else {
            return Err(EngineError::Unusable);
        };
        let terms = Arc::clone(terms);
        let Some(denial) = self.by_custom(intent, endpoint)? else {
            return Ok(Outcome::Allow { terms, would_deny: None });
        };
        let denial = Arc::new(denial);
        Ok(match (endpoint.mode, self.posture) {
            (Mode::Enforce, Posture::Enforce) => Outcome::Deny(denial),
            (Mode::Audit, _) | (_, Posture::Learn { .. }) => Outcome::Allow { terms, would_deny: Some(denial) },
        })
    }

    fn base_decision(&self, document: Value) -> Result<Decision, EngineError> {
        let answer = self.base.eval(document)?;
        let text = |key: &str| word(&answer, key);
        match text("effect")?.as_str() {
            "allow" => {
                let name = text("endpoint")?;
                self.by_name.get(name.as_str()).copied().map(Decision::Allow).ok_or(EngineError::Unusable)
            }
            "deny" => Ok(Decision::Deny { rule: text("rule")?, reason: reason(&answer)? }),
            _ => Err(EngineError::Unusable),
        }
    }

    fn by_custom(&self, intent: &Intent, endpoint: &Endpoint) -> Result<Option<Denial>, EngineError> {
        let Some(custom) = &self.custom else { return Ok(None) };
        let document = input::document(intent, ("endpoint", input::endpoint(endpoint)));
        let what = format!("{}:{}", intent.host, intent.port);
        Ok(match custom.opinion(&document)? {
            Opinion::Silent => None,
            Opinion::Deny(messages) => Some(denial::by_custom(self.generation, &what, &messages)),
            Opinion::Ask(messages) => Some(denial::asked(self.generation, &what, &messages)),
        })
    }

    pub(crate) fn engine_error(&self, error: &EngineError) -> Denial {
        Denial {
            reason: Reason::EngineError,
            rule: "engine".to_owned(),
            detail: format!("{error}; what cannot be decided is denied"),
            suggestion: None,
            generation: self.generation,
        }
    }
}

/// A text in the engine's answer.
pub(crate) fn word(answer: &Value, key: &str) -> Result<String, EngineError> {
    answer[key].as_string().map(|t| t.to_string()).map_err(|_| EngineError::Unusable)
}

/// The reason code in the engine's answer.
pub(crate) fn reason(answer: &Value) -> Result<Reason, EngineError> {
    let code = answer["reason"].as_string().map_err(|_| EngineError::Unusable)?;
    Reason::ALL.iter().copied().find(|r| r.code() == &**code).ok_or(EngineError::Unusable)
}

fn program(modules: &[(&str, &str)], entry_point: &str) -> Result<Program, Rejected> {
    let modules: Vec<Source> = modules.iter().map(|(name, text)| Source::new(*name, *text)).collect();
    Program::compile(&modules, entry_point)
}

fn terms(endpoint: &Endpoint, modules: bool) -> Terms {
    Terms {
        endpoint: endpoint.name.clone(),
        protocol: endpoint.protocol,
        tls: endpoint.tls,
        mode: endpoint.mode,
        private_addresses: endpoint.private_addresses.clone(),
        judged: endpoint.rules.any() || modules,
        limits: endpoint.limits,
        credentials: endpoint.credentials.clone(),
        callers: endpoint.callers.clone(),
        encoded_slash: endpoint.encoded_slash,
        upstream: endpoint.upstream.clone(),
    }
}

/// While learning, what no endpoint covers flows to public addresses only: HTTP or TLS on the ports of the web, where
/// TLS is decrypted if that is asked for; anything elsewhere, as it is.
#[derive(Debug)]
pub(crate) struct Learn {
    web: Arc<Terms>,
    opaque: Arc<Terms>,
}

impl Learn {
    fn new(posture: Posture) -> Self {
        let like = |protocol, tls| {
            let plain = Endpoint::plain("learn".to_owned(), Vec::new(), BTreeSet::new(), protocol);
            Arc::new(terms(&Endpoint { tls, ..plain }, false))
        };
        let web = match posture {
            Posture::Learn { inspect: true } => TlsMode::Inspect,
            _ => TlsMode::Passthrough,
        };
        Self { web: like(Protocol::Http, web), opaque: like(Protocol::Tcp, TlsMode::Passthrough) }
    }

    /// Whether these are the terms of something learned.
    pub(crate) fn gave(&self, terms: &Arc<Terms>) -> bool {
        Arc::ptr_eq(terms, &self.web) || Arc::ptr_eq(terms, &self.opaque)
    }

    fn terms(&self, port: Port) -> Arc<Terms> {
        Arc::clone(if denial::WEB_PORTS.contains(&port.get()) { &self.web } else { &self.opaque })
    }
}

/// A module that the policy names and nobody read would be a rule silently not enforced.
fn all_modules_given(policy: &Policy, modules: &[Source]) -> Result<(), Rejected> {
    let missing = policy.rego.iter().filter(|file| {
        !modules
            .iter()
            .any(|m| std::path::Path::new(&m.name).ends_with(&file.path) || m.name == file.path.to_string_lossy())
    });
    let wrong: Vec<Diagnostic> = missing
        .flat_map(|file| {
            let message =
                format!("the module {} was not loaded", crate::diagnostic::shown(&file.path.to_string_lossy()));
            Rejected::one(&file.origin.file, file.origin.at, message, None).0
        })
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(Rejected(wrong)) }
}

fn combined(policy: &Policy, modules: &[Source]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    hash.update(policy.digest.as_bytes());
    hash.update(crate::parse::digest(modules).as_bytes());
    hash.finalize().to_vec()
}

/// Helps [`input`] share values between endpoints with equal ports.
pub(crate) type PortSets = HashMap<Vec<u16>, Value>;

/// A Rego object.
pub(crate) fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::from(fields.into_iter().map(|(k, v)| (Value::from(k), v)).collect::<BTreeMap<_, _>>())
}

#[cfg(test)]
mod tests;
