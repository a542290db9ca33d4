//! What traces need from the supervisor: names and TLS.

use std::sync::Arc;

use stockade_egress::System;
use stockade_telemetry::{Lookups, Protocol, TraceSettings, Traces};
use stockade_tls::{Connector, Roots};

/// Traces to the collector of `settings`. It is the operator's, so it may be anywhere; the sandbox's rules are not for
/// it.
pub(super) fn start(settings: TraceSettings, resolver: &Arc<System>) -> Result<Traces, String> {
    let resolver = Arc::clone(resolver);
    let lookups: Lookups = Arc::new(move |name: String| {
        let resolver = Arc::clone(&resolver);
        Box::pin(async move { resolver.operators(&name.to_ascii_lowercase()).await.map_err(|e| e.to_string()) })
    });
    let tls = if settings.is_https() { Some(tls(&settings)?) } else { None };
    Ok(Traces::new(settings, lookups, tls))
}

fn tls(settings: &TraceSettings) -> Result<Arc<stockade_tls::ClientConfig>, String> {
    let wrong = |e: &dyn std::fmt::Display| format!("no traces are sent: {e}");
    let mut roots = Roots::system().or_else(|e| match &settings.certificate {
        // The named one alone may be meant.
        Some(_) => Ok(Roots::none()),
        None => Err(wrong(&e)),
    })?;
    if let Some(path) = &settings.certificate {
        roots = roots.with_file(path).map_err(|e| wrong(&e))?;
    }
    let alpn: &[u8] = match settings.protocol {
        Protocol::Http => b"http/1.1",
        Protocol::Grpc => b"h2",
    };
    let connector = Connector::new(&roots).map_err(|e| wrong(&e))?;
    Ok(connector.config(&[alpn.to_vec()], None))
}
