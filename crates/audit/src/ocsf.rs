//! OCSF 1.5 in JSON. One struct holds the attributes of all classes; each class fills its own.

mod ascii;
mod object;

use stockade_types::Reason;

use self::object::{
    Actor, ConnectionInfo, Device, Endpoint, File, FindingInfo, Fingerprint, HttpRequest, HttpResponse, LayerObject,
    Line, Named, ProcessObject, Product, SegmentObject, Traffic, Unmapped, Url, User,
};

use crate::{
    event::{
        Action, Config, Event, Finding, Http, Lifecycle, Network, Process, ProcessActivity, Segment, SegmentKind, Ssh,
    },
    message,
    record::Record,
};

/// The version of the schema that the lines follow.
pub const SCHEMA: &str = "1.5.0";

/// The door of connections that come in: all others lead out.
const PUBLISH: &str = "publish";

/// What `prev` holds in the first line of a chain.
pub(crate) const NO_PREV: &str = "";

/// Appends one line without line feed. With `prev` it is a link of a chain, ready for its hash.
pub(crate) fn write(record: &Record, sequence: u64, prev: Option<&str>, out: &mut Vec<u8>) {
    let message = message::of(&record.event);
    let class = record.event.class();
    let mut line = Line {
        time: record.time_ms,
        class_uid: class.uid(),
        class_name: class.name(),
        category_uid: class.uid() / 1000,
        severity_id: severity(&record.event),
        status_id: 1,
        message: &message,
        device: Device { uid: record.sandbox.as_str(), type_id: 99, kind: "Sandbox" },
        ..Line::default()
    };
    line.metadata.sequence = sequence;
    match &record.event {
        Event::Network(e) => network(&mut line, e),
        Event::Http(e) => http(&mut line, e),
        Event::Ssh(e) => ssh(&mut line, e),
        Event::Process(e) => process(&mut line, e),
        Event::Config(e) => config(&mut line, e),
        Event::Lifecycle(e) => lifecycle(&mut line, e),
        Event::Finding(e) => finding(&mut line, e, record, sequence),
        Event::Log(e) => segment(&mut line, e),
    }
    line.type_uid = line.class_uid * 100 + line.activity_id;
    line.unmapped.prev = prev;
    ascii::write(&line, out);
}

/// OCSF `severity_id`.
pub(crate) fn severity(event: &Event) -> u8 {
    let of_action = |action| match action {
        Action::Allowed | Action::Closed => 1,
        Action::Failed => 2,
        Action::Denied => 3,
    };
    match event {
        Event::Network(e) => of_action(e.action),
        Event::Http(e) => of_action(e.network.action),
        Event::Ssh(e) => of_action(e.action),
        Event::Process(_) => 1,
        Event::Config(e) => {
            if e.accepted {
                1
            } else {
                3
            }
        }
        Event::Lifecycle(e) => {
            if e.phase == "fail" {
                4
            } else {
                1
            }
        }
        Event::Finding(e) => e.severity.clamp(1, 5),
        Event::Log(e) => {
            if e.kind == SegmentKind::Repaired {
                3
            } else {
                1
            }
        }
    }
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn activity(line: &mut Line<'_>, id: u32, name: &'static str) {
    line.activity_id = id;
    line.activity_name = name;
}

/// The parts that a connection and a request share.
fn connection<'a>(line: &mut Line<'a>, e: &'a Network) {
    line.status_id = if matches!(e.action, Action::Denied | Action::Failed) { 2 } else { 1 };
    line.status_code = e.reason.map(Reason::code);
    line.status_detail = e.detail.as_deref();
    line.count = Some(e.suppressed.saturating_add(1));
    line.duration = e.duration_ms;
    // Action: allowed or denied. Disposition: allowed, blocked, logged, error.
    (line.action_id, line.disposition_id) = match e.action {
        Action::Allowed if e.audited => (Some(1), Some(17)),
        Action::Allowed | Action::Closed => (Some(1), Some(1)),
        Action::Denied => (Some(2), Some(2)),
        Action::Failed => (Some(1), Some(27)),
    };
    line.actor = e.process.as_ref().map(|p| Actor { app_name: None, process: Some(owner(p)) });
    line.connection_info = Some(ConnectionInfo {
        uid: (e.connection > 0).then(|| e.connection.to_string()),
        // Inbound is what comes to a published port.
        direction_id: if e.door == PUBLISH { 1 } else { 2 },
        protocol_num: e.protocol,
    });
    line.dst_endpoint = Some(Endpoint { hostname: e.host.as_deref(), ip: e.addr, port: e.port });
    line.firewall_rule = e.rule.as_deref().map(|name| Named { name });
    line.traffic = (e.action == Action::Closed).then_some(Traffic { bytes_out: e.bytes_out, bytes_in: e.bytes_in });
    line.unmapped = Unmapped {
        action: Some(e.action),
        door: Some(e.door),
        reason: e.reason,
        generation: Some(e.generation.0),
        endpoint: e.endpoint.as_deref(),
        suggestion: e.suggestion.as_deref(),
        suppressed: (e.suppressed > 0).then_some(e.suppressed),
        audited: e.audited.then_some(true),
        script: e.process.as_ref().and_then(|p| p.script.as_deref()),
        ..Unmapped::default()
    };
}

fn owner(p: &Process) -> ProcessObject<'_> {
    let name = p.exe.rsplit('/').next().unwrap_or(&p.exe);
    let hash = |value| [Fingerprint { algorithm: "SHA-256", algorithm_id: 3, value }];
    let hashes = p.sha256.as_deref().map(hash);
    ProcessObject {
        pid: p.pid,
        cmd_line: None,
        file: Some(File { name, path: &p.exe, type_id: 1, hashes }),
        lineage: &p.ancestors,
        user: User { uid: p.uid.to_string() },
    }
}

fn network<'a>(line: &mut Line<'a>, e: &'a Network) {
    connection(line, e);
    match e.action {
        Action::Allowed => activity(line, 1, "Open"),
        Action::Closed => activity(line, 2, "Close"),
        Action::Failed => activity(line, 4, "Fail"),
        Action::Denied => activity(line, 5, "Refuse"),
    }
}

fn http<'a>(line: &mut Line<'a>, e: &'a Http) {
    connection(line, &e.network);
    match e.method.as_str() {
        "CONNECT" => activity(line, 1, "Connect"),
        "DELETE" => activity(line, 2, "Delete"),
        "GET" => activity(line, 3, "Get"),
        "HEAD" => activity(line, 4, "Head"),
        "OPTIONS" => activity(line, 5, "Options"),
        "POST" => activity(line, 6, "Post"),
        "PUT" => activity(line, 7, "Put"),
        "TRACE" => activity(line, 8, "Trace"),
        _ => activity(line, 99, "Other"),
    }
    let url = Url { hostname: e.network.host.as_deref(), port: e.network.port, path: &e.path };
    line.http_request = Some(HttpRequest { http_method: &e.method, url });
    line.http_response = Some(HttpResponse { code: e.status });
}

fn ssh<'a>(line: &mut Line<'a>, e: &'a Ssh) {
    match e.action {
        Action::Allowed => activity(line, 1, "Open"),
        Action::Closed => activity(line, 2, "Close"),
        Action::Failed => activity(line, 4, "Fail"),
        Action::Denied => activity(line, 5, "Refuse"),
    }
    line.status_id = if matches!(e.action, Action::Denied | Action::Failed) { 2 } else { 1 };
    line.status_code = e.reason.map(Reason::code);
    line.status_detail = e.detail.as_deref();
    line.src_endpoint = Some(Named { name: &e.peer });
    line.dst_endpoint = e.target.as_ref().map(|(host, port)| Endpoint {
        hostname: Some(host),
        ip: host.parse().ok(),
        port: Some(*port),
    });
    line.unmapped = Unmapped {
        action: Some(e.action),
        door: Some(e.what),
        reason: e.reason,
        user: some(&e.user),
        key: e.key.as_deref(),
        ..Unmapped::default()
    };
}

fn process<'a>(line: &mut Line<'a>, e: &'a ProcessActivity) {
    if e.launched {
        activity(line, 1, "Launch");
    } else {
        activity(line, 2, "Terminate");
    }
    line.actor = Some(Actor { app_name: Some("stockade"), process: None });
    line.process = Some(ProcessObject {
        pid: e.pid,
        cmd_line: Some(e.argv.join(" ")),
        file: None,
        lineage: &[],
        user: User { uid: e.uid.to_string() },
    });
    line.exit_code = e.exit;
    line.unmapped.argv = Some(&e.argv);
}

fn config<'a>(line: &mut Line<'a>, e: &'a Config) {
    activity(line, 1, "Log");
    line.status_id = if e.accepted { 1 } else { 2 };
    line.status_code = e.reason.map(Reason::code);
    line.status_detail = some(&e.detail);
    line.unmapped.reason = e.reason;
    line.unmapped.generation = Some(e.generation.0);
    line.unmapped.source = Some(&e.source);
    line.unmapped.digest = Some(&e.digest);
}

fn lifecycle<'a>(line: &mut Line<'a>, e: &'a Lifecycle) {
    match e.phase {
        "start" => activity(line, 3, "Start"),
        "ready" => activity(line, 6, "Enable"),
        "stop" => activity(line, 4, "Stop"),
        other => activity(line, 99, other),
    }
    line.status_id = if e.phase == "fail" { 2 } else { 1 };
    line.status_code = e.reason.map(Reason::code);
    line.status_detail = some(&e.detail);
    line.app = Some(Product::default());
    line.unmapped.reason = e.reason;
    line.unmapped.layers = Some(e.layers.iter().map(LayerObject::of).collect());
}

fn finding<'a>(line: &mut Line<'a>, e: &'a Finding, record: &Record, sequence: u64) {
    activity(line, 1, "Create");
    line.status_code = Some(e.reason.code());
    line.status_detail = some(&e.detail);
    line.count = Some(e.count);
    line.finding_info = Some(FindingInfo { title: e.reason.code(), uid: format!("{}-{sequence}", record.sandbox) });
    line.unmapped.reason = Some(e.reason);
}

fn segment<'a>(line: &mut Line<'a>, e: &'a Segment) {
    match e.kind {
        SegmentKind::Genesis => activity(line, 6, "Start"),
        SegmentKind::Rotated => activity(line, 5, "Rotate"),
        SegmentKind::Restarted | SegmentKind::Repaired => activity(line, 8, "Restart"),
    }
    line.log_name = Some("stockade");
    line.unmapped.segment = Some(SegmentObject { kind: e.kind, torn: e.torn.as_ref() });
}
