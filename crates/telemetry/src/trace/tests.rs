use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use stockade_audit::{Action, Event, Http, Network};
use stockade_types::{Generation, Reason, SandboxId};

use super::{
    otlp::{KeyValue, Request, Span, Value},
    settings::Sampler,
    *,
};

fn settings(pairs: &[(&str, &str)]) -> Result<Option<Settings>, SettingsError> {
    let map: HashMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Settings::from(|name| map.get(name).cloned())
}

const AT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.test:4318/base/");

#[test]
fn nothing_is_sent_unless_asked_for() {
    assert!(settings(&[]).unwrap().is_none());
    assert!(settings(&[AT, ("OTEL_SDK_DISABLED", "true")]).unwrap().is_none());
    assert!(settings(&[AT, ("OTEL_TRACES_EXPORTER", "none")]).unwrap().is_none());
    assert!(settings(&[AT, ("OTEL_TRACES_SAMPLER", "always_off")]).unwrap().is_none());
    assert!(settings(&[AT, ("OTEL_SDK_DISABLED", "")]).unwrap().is_some());
}

#[test]
fn the_variables_mean_what_their_specification_says() {
    let plain = settings(&[AT]).unwrap().unwrap();
    assert_eq!(plain.endpoint, "http://collector.test:4318/base/v1/traces");
    assert_eq!((plain.protocol, plain.service.as_str()), (Protocol::Http, "stockade"));
    let own = settings(&[AT, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://other.test/x?y=1")]).unwrap().unwrap();
    assert_eq!(own.endpoint, "https://other.test/x?y=1");
    let grpc = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector.test:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b, x-other=c"),
        ("OTEL_SERVICE_NAME", "agent-7"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=red,service.name=ignored"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
    ];
    let grpc = settings(&grpc).unwrap().unwrap();
    assert_eq!(grpc.endpoint, "http://collector.test:4317/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    assert_eq!(grpc.headers["x-key"], "a b");
    assert_eq!((grpc.service.as_str(), grpc.timeout), ("agent-7", Duration::from_millis(250)));
    assert_eq!(grpc.resource, [("team".to_owned(), "red".to_owned())]);
    assert!(!format!("{grpc:?}").contains("a b"), "header fields are secrets");
}

#[test]
fn a_variable_that_cannot_be_used_is_named_without_its_value() {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json-s3cret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "k=%zz-s3cret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "bad name=s3cret"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "s3cret"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip-s3cret"),
        ("OTEL_TRACES_SAMPLER", "s3cret"),
        ("OTEL_TRACES_EXPORTER", "s3cret"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://s3cret"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://user:s3cret@host"),
    ] {
        let refused = settings(&[AT, (name, value)]).unwrap_err();
        assert_eq!(refused.name, name, "{value}");
        assert!(!refused.to_string().contains("s3cret"), "{refused}");
    }
}

#[test]
fn a_share_of_traces_is_a_share() {
    let ratio = |arg: &str| settings(&[AT, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", arg)]);
    let sampler = |arg: &str| ratio(arg).unwrap().unwrap().sampler;
    let trace = |random: u8| [&[0; 9][..], &[random; 7]].concat();
    let taken = |s: Sampler| (0..=255).filter(|n| s.takes(&trace(*n))).count();
    assert_eq!([taken(sampler("0")), taken(sampler("0.5")), taken(sampler("1"))], [0, 128, 256]);
    assert!(ratio("1.5").is_err() && ratio("x").is_err());
}

fn record(event: Event) -> Record {
    Record { sequence: 1, time_ms: 5_000, sandbox: Arc::new(SandboxId::from_random([3; 8])), event }
}

fn denied() -> Record {
    let network = Network {
        host: Some("evil.test".into()),
        port: Some(443),
        reason: Some(Reason::NoPolicy),
        rule: Some("default".into()),
        connection: 9,
        duration_ms: Some(20),
        detail: Some("s3cret".into()),
        ..Network::new(Action::Denied, "connect", Generation(4))
    };
    record(Event::Http(Http { network, method: "S3CRET".into(), path: "/s3cret".into(), status: 403 }))
}

fn values(span: &Span) -> HashMap<&str, String> {
    let text = |kv: &KeyValue| match kv.value.as_ref().and_then(|v| v.value.as_ref()) {
        Some(Value::Text(t)) => t.clone(),
        Some(Value::Number(n)) => n.to_string(),
        None => String::new(),
    };
    span.attributes.iter().map(|kv| (kv.key.as_str(), text(kv))).collect()
}

/// What a collector got: header fields and messages.
type Got = Arc<Mutex<Vec<(HeaderMap, Request)>>>;

/// A collector that answers with these statuses in turn, the last one for ever.
async fn collector(grpc: bool, statuses: &'static [u16]) -> (SocketAddr, Got) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, got) = (listener.local_addr().unwrap(), Got::default());
    let seen = Arc::clone(&got);
    tokio::spawn(async move {
        let mut turn = statuses.iter().chain(std::iter::repeat(statuses.last().unwrap()));
        while let Ok((stream, _)) = listener.accept().await {
            let (seen, status) = (Arc::clone(&seen), *turn.next().unwrap());
            let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let seen = Arc::clone(&seen);
                async move {
                    let fields = request.headers().clone();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let message = if grpc { body.slice(5..) } else { body };
                    seen.lock().unwrap().push((fields, Request::decode(message).unwrap()));
                    let mut response = http::Response::new(Full::new(Bytes::new()));
                    if grpc {
                        // Trailers only, which is how servers answer without a message.
                        response.headers_mut().insert("grpc-status", status.into());
                    } else {
                        *response.status_mut() = status.try_into().unwrap();
                    }
                    Ok::<_, Infallible>(response)
                }
            });
            tokio::spawn(async move {
                let io = TokioIo::new(stream);
                if grpc {
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(io, answer)
                        .await;
                } else {
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, answer).await;
                }
            });
        }
    });
    (addr, got)
}

fn traces(addr: SocketAddr, more: &[(&str, &str)]) -> Traces {
    let url = format!("http://collector.test:{}", addr.port());
    let all = [&[("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=s3cret")], more];
    let settings = settings(&all.concat()).unwrap().unwrap();
    let lookups: Lookups = Arc::new(move |name| {
        assert_eq!(name, "collector.test");
        Box::pin(async move { Ok(vec![addr.ip()]) })
    });
    Traces::new(settings, lookups, None)
}

#[tokio::test]
async fn spans_arrive_and_tell_the_verdict_and_nothing_that_was_said() {
    for (grpc, protocol) in [(false, "http/protobuf"), (true, "grpc")] {
        let (addr, got) = collector(grpc, if grpc { &[0] } else { &[200] }).await;
        let mut traces = traces(addr, &[("OTEL_EXPORTER_OTLP_PROTOCOL", protocol), ("OTEL_SERVICE_NAME", "agent")]);
        traces.record(&denied());
        let closed =
            Network { bytes_in: 7, duration_ms: Some(1_000), ..Network::new(Action::Closed, "connect", Generation(4)) };
        traces.record(&record(Event::Network(closed)));
        traces.record(&record(Event::Network(Network::new(Action::Allowed, "connect", Generation(4)))));
        traces.flush(Duration::from_secs(20)).await;
        assert_eq!(traces.counts(), Counts { sent: 2, dropped: 0 }, "{protocol}");
        let got = got.lock().unwrap();
        let (fields, request) = &got[0];
        assert_eq!(fields["x-key"], "s3cret", "the collector's own key");
        let resource = request.resource_spans[0].resource.as_ref().unwrap();
        assert!(resource.attributes.contains(&KeyValue::text("service.name", "agent")), "{resource:?}");
        let spans = &request.resource_spans[0].scope_spans[0].spans;
        let said = values(&spans[0]);
        assert_eq!((said["stockade.verdict"].as_str(), said["server.address"].as_str()), ("denied", "evil.test"));
        assert_eq!((said["stockade.rule"].as_str(), said["stockade.reason"].as_str()), ("default", "no_policy"));
        assert_eq!((spans[0].name.as_str(), spans[0].status.as_ref().map(|s| s.code)), ("_OTHER", Some(2)));
        assert_eq!(spans[0].end_time_unix_nano - spans[0].start_time_unix_nano, 20_000_000);
        assert_eq!(values(&spans[1])["stockade.bytes.in"], "7");
        assert_ne!(spans[0].trace_id, spans[1].trace_id);
        assert!(!format!("{request:?}").to_ascii_lowercase().contains("s3cret"), "{request:?}");
    }
}

#[tokio::test]
async fn a_busy_collector_is_tried_again_and_one_that_refuses_is_not() {
    let (addr, got) = collector(false, &[503, 200]).await;
    let mut busy = traces(addr, &[]);
    busy.record(&denied());
    busy.flush(Duration::from_secs(20)).await;
    assert_eq!((busy.counts().sent, got.lock().unwrap().len()), (1, 2));
    for (grpc, status, protocol) in [(false, 400, "http/protobuf"), (true, 7, "grpc")] {
        let (addr, got) = collector(grpc, if status == 400 { &[400] } else { &[7] }).await;
        let mut refused = traces(addr, &[("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)]);
        refused.record(&denied());
        refused.flush(Duration::from_secs(20)).await;
        assert_eq!(refused.counts(), Counts { sent: 0, dropped: 1 }, "{protocol}");
        assert_eq!(got.lock().unwrap().len(), 1, "{protocol}: once");
    }
}

#[tokio::test]
async fn without_a_collector_the_queue_stays_bounded_and_what_is_lost_is_counted() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = nobody.local_addr().unwrap();
    drop(nobody);
    let mut traces = traces(addr, &[]);
    for _ in 0..QUEUE + 10 {
        traces.record(&denied());
    }
    assert_eq!(traces.counts().dropped, 10);
    traces.flush(Duration::from_secs(20)).await;
    assert_eq!(traces.counts().dropped, 10 + BATCH as u64, "one batch was tried");
}
