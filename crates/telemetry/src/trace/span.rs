//! Audit events as spans.

use stockade_audit::{Action, Event, Http, Network, Record};

use super::{
    otlp::{CLIENT, ERROR, KeyValue, Request, Resource, ResourceSpans, Scope, ScopeSpans, Span, Status},
    settings::{Sampler, Settings},
};

/// Characters of a host name that are sent; a real one is shorter.
const HOST: usize = 255;
/// Methods that are sent as they are (the list of the semantic conventions); others are `_OTHER`.
const METHODS: [&str; 10] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"];

/// Makes spans, and the message that carries them.
pub(super) struct Maker {
    sampler: Sampler,
    service: String,
    resource: Vec<(String, String)>,
    sandbox: std::sync::OnceLock<String>,
}

impl Maker {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            sampler: settings.sampler,
            service: settings.service.clone(),
            resource: settings.resource.clone(),
            sandbox: std::sync::OnceLock::new(),
        }
    }

    /// The span that ends with this event, if one does and the sampler takes it.
    pub(super) fn span(&self, record: &Record) -> Option<Span> {
        self.sandbox.get_or_init(|| record.sandbox.as_str().to_owned());
        let (network, http) = match &record.event {
            // The tunnel's span ends with it.
            Event::Network(n) if n.action == Action::Allowed => return None,
            Event::Network(n) => (n, None),
            Event::Http(h) => (&h.network, Some(h)),
            Event::Ssh(_)
            | Event::Process(_)
            | Event::Config(_)
            | Event::Lifecycle(_)
            | Event::Finding(_)
            | Event::Log(_) => {
                return None;
            }
        };
        let mut ids = [0; 24];
        // A machine without random numbers has no traces; it has other worries.
        rustix::rand::getrandom(&mut ids, rustix::rand::GetRandomFlags::empty()).ok()?;
        let (trace, id) = ids.split_at(16);
        if !self.sampler.takes(trace) {
            return None;
        }
        let end = record.time_ms.saturating_mul(1_000_000);
        let took = network.duration_ms.unwrap_or(0).saturating_mul(1_000_000);
        let refused = matches!(network.action, Action::Denied | Action::Failed);
        let mut attributes = connection(network);
        attributes.extend(http.into_iter().flat_map(request));
        Some(Span {
            trace_id: trace.to_vec(),
            span_id: id.to_vec(),
            name: http.map_or(network.door, |h| method(&h.method)).to_owned(),
            kind: CLIENT,
            start_time_unix_nano: end.saturating_sub(took),
            end_time_unix_nano: end,
            attributes,
            status: refused.then(|| Status {
                message: network.reason.map(|r| r.code().to_owned()).unwrap_or_default(),
                code: ERROR,
            }),
        })
    }

    pub(super) fn request(&self, spans: Vec<Span>) -> Request {
        let own = [
            KeyValue::text("service.name", self.service.clone()),
            KeyValue::text("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::text("stockade.sandbox", self.sandbox.get().cloned().unwrap_or_default()),
        ];
        let given = self.resource.iter().map(|(k, v)| KeyValue::text(k, v.clone()));
        let scope = Scope { name: "stockade".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        Request {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource { attributes: own.into_iter().chain(given).collect() }),
                scope_spans: vec![ScopeSpans { scope: Some(scope), spans }],
            }],
        }
    }
}

fn connection(n: &Network) -> Vec<KeyValue> {
    let verdict = match n.action {
        Action::Allowed | Action::Closed if n.audited => "audited",
        Action::Allowed | Action::Closed => "allowed",
        Action::Denied => "denied",
        Action::Failed => "failed",
    };
    let mut all = vec![
        KeyValue::text("stockade.verdict", verdict),
        KeyValue::text("stockade.door", n.door),
        KeyValue::number("stockade.policy.generation", n.generation.0),
    ];
    let host = n.host.clone().or_else(|| n.addr.map(|a| a.to_string()));
    all.extend(host.map(|h| KeyValue::text("server.address", h.chars().take(HOST).collect::<String>())));
    all.extend(n.port.map(|p| KeyValue::number("server.port", p)));
    all.extend(n.reason.map(|r| KeyValue::text("stockade.reason", r.code())));
    all.extend(n.rule.as_ref().map(|r| KeyValue::text("stockade.rule", r.clone())));
    all.extend(n.endpoint.as_ref().map(|e| KeyValue::text("stockade.endpoint", e.clone())));
    if n.connection > 0 {
        all.push(KeyValue::number("stockade.connection", n.connection));
    }
    if n.suppressed > 0 {
        all.push(KeyValue::number("stockade.suppressed", n.suppressed));
    }
    if n.action == Action::Closed {
        all.push(KeyValue::number("stockade.bytes.out", n.bytes_out));
        all.push(KeyValue::number("stockade.bytes.in", n.bytes_in));
    }
    all
}

fn request(h: &Http) -> [KeyValue; 2] {
    [KeyValue::text("http.request.method", method(&h.method)), KeyValue::number("http.response.status_code", h.status)]
}

fn method(sent: &str) -> &'static str {
    METHODS.iter().find(|m| **m == sent).copied().unwrap_or("_OTHER")
}
