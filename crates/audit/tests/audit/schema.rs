//! Every number that is written against the published schema: `github.com/ocsf/ocsf-schema`, tag 1.5.0, the files
//! `events/**/*.json`, `profiles/security_control.json` and the enumerations of `dictionary.json`, read by hand.

use serde_json::Value;
use stockade_audit::{Action, Class, Event, Http, Lifecycle, Network, ProcessActivity, SCHEMA, Segment, SegmentKind};

use crate::samples;

struct Row {
    class: Class,
    /// `category_uid` (categories.json) and `class_uid`: the category times 1000 plus the class's own `uid`.
    ids: (u64, u64),
    caption: &'static str,
    /// `activity_id` with its caption, beside 0 Unknown and 99 Other, which every class has.
    activities: &'static [(u64, &'static str)],
    /// What the class requires or, of a list of which one is required, what is always written.
    required: &'static [&'static str],
}

const ROWS: &[Row] = &[
    Row {
        class: Class::Network,
        ids: (4, 4001),
        caption: "Network Activity",
        activities: &[
            (1, "Open"),
            (2, "Close"),
            (3, "Reset"),
            (4, "Fail"),
            (5, "Refuse"),
            (6, "Traffic"),
            (7, "Listen"),
        ],
        required: &["dst_endpoint"],
    },
    Row {
        class: Class::Http,
        ids: (4, 4002),
        caption: "HTTP Activity",
        activities: &[
            (1, "Connect"),
            (2, "Delete"),
            (3, "Get"),
            (4, "Head"),
            (5, "Options"),
            (6, "Post"),
            (7, "Put"),
            (8, "Trace"),
        ],
        required: &["http_request"],
    },
    Row {
        class: Class::Ssh,
        ids: (4, 4007),
        caption: "SSH Activity",
        activities: &[
            (1, "Open"),
            (2, "Close"),
            (3, "Reset"),
            (4, "Fail"),
            (5, "Refuse"),
            (6, "Traffic"),
            (7, "Listen"),
        ],
        required: &["src_endpoint"],
    },
    Row {
        class: Class::Process,
        ids: (1, 1007),
        caption: "Process Activity",
        activities: &[(1, "Launch"), (2, "Terminate"), (3, "Open"), (4, "Inject"), (5, "Set User ID")],
        required: &["process", "actor", "device"],
    },
    Row {
        class: Class::Config,
        ids: (5, 5019),
        caption: "Device Config State Change",
        activities: &[(1, "Log"), (2, "Collect")],
        required: &["device"],
    },
    Row {
        class: Class::Lifecycle,
        ids: (6, 6002),
        caption: "Application Lifecycle",
        activities: &[
            (1, "Install"),
            (2, "Remove"),
            (3, "Start"),
            (4, "Stop"),
            (5, "Restart"),
            (6, "Enable"),
            (7, "Disable"),
            (8, "Update"),
        ],
        required: &["app"],
    },
    Row {
        class: Class::Finding,
        ids: (2, 2004),
        caption: "Detection Finding",
        activities: &[(1, "Create"), (2, "Update"), (3, "Close")],
        required: &["finding_info"],
    },
    Row {
        class: Class::Log,
        ids: (1, 1008),
        caption: "Event Log Activity",
        activities: &[
            (1, "Clear"),
            (2, "Delete"),
            (3, "Export"),
            (4, "Archive"),
            (5, "Rotate"),
            (6, "Start"),
            (7, "Stop"),
            (8, "Restart"),
            (9, "Enable"),
            (10, "Disable"),
        ],
        required: &["log_name"],
    },
];

const SEVERITIES: [u64; 6] = [1, 2, 3, 4, 5, 6];
const STATUSES: [u64; 2] = [1, 2];
/// Allowed, Denied, Observed, Modified.
const ACTIONS: [u64; 4] = [1, 2, 3, 4];
/// 1 Allowed to 27 Error.
const DISPOSITIONS: std::ops::RangeInclusive<u64> = 1..=27;

/// The samples, and every method, phase and kind that picks an activity.
fn events() -> Vec<Event> {
    let mut all: Vec<Event> = samples::all().into_iter().map(|(_, event)| event).collect();
    for action in [Action::Allowed, Action::Denied, Action::Failed, Action::Closed] {
        all.push(Event::Network(samples::network(action)));
    }
    for method in ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT", "TRACE", "PATCH", "BREW"] {
        let network = Network { ..samples::network(Action::Allowed) };
        all.push(Event::Http(Http { network, method: method.into(), path: "/".into(), status: 200 }));
    }
    for phase in ["start", "ready", "stop", "fail"] {
        let (layers, detail) = (Vec::new(), String::new());
        all.push(Event::Lifecycle(Lifecycle { phase, reason: None, layers, detail }));
    }
    for kind in [SegmentKind::Genesis, SegmentKind::Rotated, SegmentKind::Restarted, SegmentKind::Repaired] {
        all.push(Event::Log(Segment { kind, torn: None }));
    }
    for launched in [true, false] {
        all.push(Event::Process(ProcessActivity { launched, pid: 2, argv: Vec::new(), uid: 1000, exit: None }));
    }
    all
}

#[test]
fn every_number_is_the_schema_s() {
    assert_eq!(SCHEMA, "1.5.0", "the table is of this version");
    assert!(Class::ALL.iter().all(|c| ROWS.iter().any(|r| r.class == *c)), "a class without a row");
    for event in events() {
        let row = ROWS.iter().find(|r| r.class == event.class()).unwrap();
        let text = samples::record(1, event).to_ocsf();
        let line: Value = serde_json::from_str(&text).unwrap();
        let number = |key: &str| line[key].as_u64().unwrap_or_else(|| panic!("{key} in {text}"));
        let (category, class) = row.ids;
        assert_eq!((number("category_uid"), number("class_uid")), row.ids, "{text}");
        assert_eq!(class / 1000, category);
        assert_eq!(line["class_name"], row.caption, "{text}");
        let activity = number("activity_id");
        assert_eq!(number("type_uid"), class * 100 + activity, "{text}");
        match row.activities.iter().find(|(id, _)| *id == activity) {
            Some((_, caption)) => assert_eq!(line["activity_name"], *caption, "{text}"),
            // Then the name is the source's own.
            None => assert_eq!(activity, 99, "{text}"),
        }
        assert!(SEVERITIES.contains(&number("severity_id")) && STATUSES.contains(&number("status_id")), "{text}");
        for key in row.required {
            assert!(!line[key].is_null(), "{key} is required: {text}");
        }
        assert!(line["action_id"].is_null() || ACTIONS.contains(&number("action_id")), "{text}");
        assert!(line["disposition_id"].is_null() || DISPOSITIONS.contains(&number("disposition_id")), "{text}");
        // network_connection_info requires it; 2 is Outbound.
        assert!(line["connection_info"].is_null() || line["connection_info"]["direction_id"] == 2, "{text}");
    }
}
