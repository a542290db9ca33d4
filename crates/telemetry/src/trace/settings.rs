//! The usual variables of OpenTelemetry.

use std::{fmt, path::PathBuf, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

/// How spans travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Protocol buffers over HTTP/1.1.
    Http,
    /// gRPC.
    Grpc,
}

/// Which spans are sent. There is never a parent, so the `parentbased_` samplers are those that they are based on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Sampler {
    /// All.
    On,
    /// None.
    Off,
    /// This share of them, of 2^56.
    Ratio(u64),
}

/// Where to, how, and which.
#[derive(Clone)]
pub struct Settings {
    /// The collector, with the path that is posted to.
    pub endpoint: Uri,
    /// How.
    pub protocol: Protocol,
    /// Header fields for the collector. Their values may be secrets.
    pub headers: HeaderMap,
    /// For one batch.
    pub timeout: Duration,
    /// Authorities (PEM) that may sign for the collector, besides the machine's.
    pub certificate: Option<PathBuf>,
    /// `service.name`.
    pub service: String,
    /// Attributes of every span.
    pub resource: Vec<(String, String)>,
    /// Which.
    pub(super) sampler: Sampler,
}

/// A variable that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {why}; no traces are sent")]
pub struct SettingsError {
    /// Which.
    pub name: &'static str,
    /// Why, without its value, which may be a secret.
    pub why: String,
}

/// Longest value of a variable that is looked at.
const LONGEST: usize = 8 * 1024;
const PATH: &str = "/v1/traces";
const SERVICE: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

impl Settings {
    /// What the variables ask for; `None` where they ask for nothing. `variable` gives one by name.
    ///
    /// # Errors
    /// When they ask for what cannot be had.
    pub fn from(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, SettingsError> {
        let env = Variables { get: &variable };
        if env.text("OTEL_SDK_DISABLED")?.is_some_and(|v| v.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        match env.text("OTEL_TRACES_EXPORTER")?.as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(_) => return Err(fault("OTEL_TRACES_EXPORTER", "only `otlp` and `none` are known")),
        }
        let own = env.text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")?;
        let (name, endpoint, shared) = match (own, env.text("OTEL_EXPORTER_OTLP_ENDPOINT")?) {
            (Some(own), _) => ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", own, false),
            (None, Some(shared)) => ("OTEL_EXPORTER_OTLP_ENDPOINT", shared, true),
            (None, None) => return Ok(None),
        };
        let sampler = sampler(&env)?;
        if sampler == Sampler::Off {
            return Ok(None);
        }
        let protocol = match env.either("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")? {
            (_, None) => Protocol::Http,
            (_, Some(p)) if p == "http/protobuf" => Protocol::Http,
            (_, Some(p)) if p == "grpc" => Protocol::Grpc,
            (name, Some(_)) => return Err(fault(name, "only `http/protobuf` and `grpc` are known")),
        };
        match env.either("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION")? {
            (_, None) => {}
            (_, Some(c)) if c == "none" => {}
            (name, Some(_)) => return Err(fault(name, "only `none` is known")),
        }
        let (name_of_headers, headers) =
            env.either("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")?;
        let (name_of_timeout, timeout) =
            env.either("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")?;
        let (_, certificate) = env.either("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE")?;
        let mut resource =
            pairs("OTEL_RESOURCE_ATTRIBUTES", &env.text("OTEL_RESOURCE_ATTRIBUTES")?.unwrap_or_default())?;
        let named = resource.iter().position(|(k, _)| k == "service.name").map(|at| resource.remove(at).1);
        Ok(Some(Self {
            endpoint: uri(name, &endpoint, protocol, shared)?,
            protocol,
            headers: fields(name_of_headers, &headers.unwrap_or_default())?,
            timeout: milliseconds(name_of_timeout, timeout)?,
            certificate: certificate.map(PathBuf::from),
            service: env.text("OTEL_SERVICE_NAME")?.or(named).unwrap_or_else(|| "stockade".to_owned()),
            resource,
            sampler,
        }))
    }

    /// Whether the collector is spoken to over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.endpoint.scheme_str() == Some("https")
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the header fields.
        f.debug_struct("Settings").field("endpoint", &self.endpoint).field("protocol", &self.protocol).finish()
    }
}

impl Sampler {
    /// Whether the trace is sent: decided by the random part of its id, as W3C Trace Context has it.
    pub(super) fn takes(self, trace: &[u8]) -> bool {
        match self {
            Self::On => true,
            Self::Off => false,
            Self::Ratio(share) => {
                let random = trace.iter().skip(9).fold(0, |sum: u64, b| sum << 8 | u64::from(*b));
                random < share
            }
        }
    }
}

struct Variables<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
}

impl Variables<'_> {
    /// An empty variable is one that is not set.
    fn text(&self, name: &'static str) -> Result<Option<String>, SettingsError> {
        match (self.get)(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()) {
            Some(value) if value.len() > LONGEST => Err(fault(name, "longer than 8 KiB")),
            value => Ok(value),
        }
    }

    /// The variable for traces, else the one for everything.
    fn either(&self, own: &'static str, shared: &'static str) -> Result<(&'static str, Option<String>), SettingsError> {
        match self.text(own)? {
            Some(value) => Ok((own, Some(value))),
            None => Ok((shared, self.text(shared)?)),
        }
    }
}

fn fault(name: &'static str, why: impl fmt::Display) -> SettingsError {
    SettingsError { name, why: why.to_string() }
}

fn sampler(env: &Variables<'_>) -> Result<Sampler, SettingsError> {
    let name = env.text("OTEL_TRACES_SAMPLER")?;
    match name.as_deref().map(|n| n.strip_prefix("parentbased_").unwrap_or(n)) {
        None | Some("always_on") => Ok(Sampler::On),
        Some("always_off") => Ok(Sampler::Off),
        Some("traceidratio") => {
            let ratio = env.text("OTEL_TRACES_SAMPLER_ARG")?.map_or(Ok(1.0), |a| a.parse::<f64>());
            match ratio {
                // Exact where it matters: 0 and 1.
                Ok(r) if (0.0..=1.0).contains(&r) => Ok(Sampler::Ratio((r * (1_u64 << 56) as f64) as u64)),
                _ => Err(fault("OTEL_TRACES_SAMPLER_ARG", "not a number between 0 and 1")),
            }
        }
        Some(_) => Err(fault(
            "OTEL_TRACES_SAMPLER",
            "use always_on, always_off or traceidratio, or parentbased_ and one of them",
        )),
    }
}

fn uri(name: &'static str, text: &str, protocol: Protocol, shared: bool) -> Result<Uri, SettingsError> {
    // gRPC knows no path; many write its address without a scheme.
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = text.parse().map_err(|_| fault(name, "not a URL"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(fault(name, "not a URL with a host"));
    };
    if !matches!(scheme, "http" | "https") {
        return Err(fault(name, "the URL is neither http nor https"));
    }
    if authority.as_str().contains('@') {
        return Err(fault(name, "a URL with a password in it; put it into OTEL_EXPORTER_OTLP_HEADERS"));
    }
    let path = match protocol {
        Protocol::Grpc => SERVICE.to_owned(),
        Protocol::Http if shared => format!("{}{PATH}", uri.path().trim_end_matches('/')),
        Protocol::Http => uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
    };
    let made = Uri::builder().scheme(scheme).authority(authority.clone()).path_and_query(path).build();
    made.map_err(|_| fault(name, "not a URL"))
}

/// `k=v,k=v`, percent-encoded, as W3C Baggage has it.
fn pairs(name: &'static str, text: &str) -> Result<Vec<(String, String)>, SettingsError> {
    let pair = |part: &str| {
        let (key, value) = part.split_once('=').ok_or_else(|| fault(name, "expected KEY=VALUE,KEY=VALUE"))?;
        Ok((
            key.trim().to_owned(),
            decoded(value.trim()).ok_or_else(|| fault(name, "a value is not percent-encoded text"))?,
        ))
    };
    text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        out.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    String::from_utf8(out).ok()
}

fn fields(name: &'static str, text: &str) -> Result<HeaderMap, SettingsError> {
    let mut fields = HeaderMap::new();
    for (key, value) in pairs(name, text)? {
        let key = HeaderName::try_from(key).map_err(|_| fault(name, "not a field name"))?;
        let mut value = HeaderValue::try_from(value).map_err(|_| fault(name, "not a field value"))?;
        value.set_sensitive(true);
        fields.insert(key, value);
    }
    Ok(fields)
}

fn milliseconds(name: &'static str, text: Option<String>) -> Result<Duration, SettingsError> {
    match text.map(|t| t.parse::<u64>()) {
        None => Ok(Duration::from_secs(10)),
        Some(Ok(ms @ 1..=600_000)) => Ok(Duration::from_millis(ms)),
        Some(_) => Err(fault(name, "not a number of milliseconds between 1 and 600000")),
    }
}
