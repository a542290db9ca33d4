//! Traces, read by the published messages of OpenTelemetry: a collector in Python.

use std::{
    fs,
    process::{Command, Stdio},
};

use serde_json::Value;
use stockade_testkit::{Mode, Outer, Stockade, skip};

use super::*;

/// Writes each span as a line of JSON. HTTP only: gRPC is tested beside the exporter.
const COLLECTOR: &str = r#"
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
out = open(sys.argv[1], "a")
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        request = service.ExportTraceServiceRequest(); request.ParseFromString(body)
        value = lambda v: getattr(v, v.WhichOneof("value"))
        pairs = lambda all: {kv.key: value(kv.value) for kv in all}
        for r in request.resource_spans:
            for s in r.scope_spans:
                for span in s.spans:
                    print(json.dumps({"path": self.path, "key": self.headers["x-key"], "name": span.name,
                        "resource": pairs(r.resource.attributes), "attributes": pairs(span.attributes),
                        "trace": len(span.trace_id), "id": len(span.span_id), "parent": span.parent_span_id.hex(),
                        "took": span.end_time_unix_nano - span.start_time_unix_nano, "status": span.status.code}),
                        file=out, flush=True)
        self.send_response(200); self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *args): pass
HTTPServer(("192.0.2.10", 4318), Handler).serve_forever()
"#;

#[test]
fn a_real_receiver_reads_the_verdicts_and_nothing_that_was_said() {
    let python = std::env::var("STOCKADE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let known = Command::new(&python).args(["-c", "import opentelemetry.proto"]).stderr(Stdio::null()).status();
    if !known.is_ok_and(|s| s.success()) {
        skip!("the Python package opentelemetry-proto is needed to read traces (STOCKADE_TEST_PYTHON names a Python)");
    }
    Outer::run(|outer| {
        let (_site, _dns) = world();
        let (program, out) = (outer.dir().join("collector.py"), outer.dir().join("spans"));
        fs::write(&program, COLLECTOR).unwrap();
        fs::write(&out, "").unwrap();
        let mut collector = Command::new(&python).arg(&program).arg(&out).spawn().unwrap();
        let until = Instant::now() + SOON;
        while TcpStream::connect("192.0.2.10:4318").is_err() && Instant::now() < until {
            thread_sleep();
        }
        for mode in Mode::available() {
            fs::write(&out, "").unwrap();
            let script = "curl -sS http://up.test/canary-path?canary-query=1 -H 'x-canary: canary-field' \
                -H 'traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'; curl -sS http://no.test/";
            let run = Stockade::new(*mode)
                .policy(POLICY)
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://up.test:4318")
                .env("OTEL_EXPORTER_OTLP_HEADERS", "x-key=collector-key")
                .env("OTEL_SERVICE_NAME", "agent-under-test")
                .sh(script);
            run.assert_code(0);
            let text = fs::read_to_string(&out).unwrap();
            assert!(!text.contains("canary"), "{mode:?} {text}");
            assert!(!run.stderr.contains("collector-key"), "{run:?}");
            let spans: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
            let of = |host: &str| {
                let found = spans.iter().find(|s| s["attributes"]["server.address"] == host);
                found.unwrap_or_else(|| panic!("no span for {host}: {text}\n{run:?}"))
            };
            let (allowed, denied) = (of("up.test"), of("no.test"));
            assert_eq!(allowed["attributes"]["stockade.verdict"], "allowed", "{mode:?}");
            assert_eq!(allowed["attributes"]["http.response.status_code"], 200, "{mode:?}");
            assert_eq!((&allowed["path"], &allowed["key"]), (&"/v1/traces".into(), &"collector-key".into()));
            assert_eq!((&allowed["trace"], &allowed["id"], &allowed["parent"]), (&16.into(), &8.into(), &"".into()));
            assert_eq!(allowed["resource"]["service.name"], "agent-under-test");
            assert_eq!(denied["attributes"]["stockade.reason"], "no_policy");
            assert_eq!(denied["status"], 2);
        }
        collector.kill().unwrap();
        collector.wait().unwrap();
    });
}

/// A collector that is not there costs the run two seconds at its end, and a line on stderr.
#[test]
fn without_a_collector_the_command_runs_all_the_same() {
    Outer::run(|_| {
        let (_site, _dns) = world();
        let mode = *Mode::available().first().unwrap();
        let run = Stockade::new(mode)
            .policy(POLICY)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://192.0.2.10:4318")
            .sh("curl -sS http://up.test/; sleep 6.5");
        run.assert_code(0);
        assert!(run.stderr.contains("collector of traces 192.0.2.10:4318 cannot be reached"), "{run:?}");
        let run = Stockade::new(mode)
            .policy(POLICY)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://192.0.2.10:4318")
            .env("OTEL_EXPORTER_OTLP_HEADERS", "canary-without-equals")
            .sh("curl -sS http://up.test/");
        run.assert_code(0);
        assert!(run.stderr.contains("OTEL_EXPORTER_OTLP_HEADERS") && !run.stderr.contains("canary"), "{run:?}");
    });
}

fn thread_sleep() {
    std::thread::sleep(Duration::from_millis(20));
}
