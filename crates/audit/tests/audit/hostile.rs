//! Text from inside the sandbox in every place that takes text.

use proptest::prelude::*;
use stockade_audit::{
    Action, Config, Event, Finding, Format, Http, Lifecycle, Network, Process, ProcessActivity, export, export::text,
};
use stockade_types::{Enforcement, Generation, Layer, LayerStatus, Reason};

use crate::samples;

/// Text that tries to end a line, a string or an object, to speak to a terminal, or to reorder what is read.
fn hostile() -> impl Strategy<Value = String> {
    let nasty = prop::sample::select(vec![
        "\n",
        "\r\n",
        "\0",
        "\"",
        "\\",
        "\"}}\n{\"time\":1",
        "\u{1b}]52;c;AA==\u{7}",
        "\u{9b}2J",
        "\u{7f}",
        "\u{202e}",
        "\u{2028}",
        "\u{feff}",
        "😀",
        "=cmd|' /C calc'!A0",
        ",\"hash\":\"",
    ]);
    prop_oneof![
        any::<String>(),
        prop::collection::vec(nasty, 0..6).prop_map(|parts| parts.concat()),
        "[a-z.]{0,20}",
        Just("x".repeat(3000)),
    ]
}

fn network() -> impl Strategy<Value = Network> {
    let action = prop::sample::select(vec![Action::Allowed, Action::Denied, Action::Failed, Action::Closed]);
    let reason = prop::option::of(prop::sample::select(Reason::ALL));
    let texts = prop::collection::vec(prop::option::of(hostile()), 6);
    (action, reason, texts, any::<Option<std::net::IpAddr>>(), any::<(u8, u64, u64, bool)>()).prop_map(
        |(action, reason, texts, addr, (protocol, suppressed, bytes_in, audited))| {
            let mut texts = texts.into_iter();
            let mut text = || texts.next().flatten();
            Network {
                reason,
                protocol,
                host: text(),
                addr,
                port: Some(443),
                endpoint: text(),
                rule: text(),
                detail: text(),
                suggestion: text(),
                process: text().map(|exe| Process {
                    script: Some(exe.clone()),
                    ancestors: vec![exe.clone()],
                    ..Process::new(1, exe, 0)
                }),
                suppressed,
                bytes_out: 1,
                bytes_in,
                audited,
                ..Network::new(action, "connect", Generation(bytes_in))
            }
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        network().prop_map(Event::Network),
        (network(), hostile(), hostile(), any::<u16>()).prop_map(|(network, method, path, status)| Event::Http(Http {
            network,
            method,
            path,
            status
        })),
        (any::<bool>(), prop::collection::vec(hostile(), 0..80), any::<Option<i32>>()).prop_map(
            |(launched, argv, exit)| Event::Process(ProcessActivity { launched, pid: 1, argv, uid: 1, exit })
        ),
        (any::<bool>(), hostile(), hostile(), hostile()).prop_map(|(accepted, source, digest, detail)| {
            Event::Config(Config { accepted, reason: None, generation: Generation(1), source, digest, detail })
        }),
        (hostile(), hostile()).prop_map(|(detail, why)| {
            let layers = vec![LayerStatus { layer: Layer::Fence, enforcement: Enforcement::Partial(why) }];
            Event::Lifecycle(Lifecycle { phase: "start", reason: None, layers, detail })
        }),
        (hostile(), any::<u8>(), any::<u64>()).prop_map(|(detail, severity, count)| {
            Event::Finding(Finding { reason: Reason::OuterWeak, severity, detail, count })
        }),
    ]
}

fn printable_line(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{feff}'))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_event_is_one_line_of_json_in_ascii_and_one_human_line(event in event()) {
        let record = samples::record(1, event);
        let line = record.to_ocsf();
        prop_assert!(line.bytes().all(|b| (0x20..0x7f).contains(&b)));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(value["class_uid"].as_u64(), Some(u64::from(record.event.class().uid())));
        prop_assert_eq!(&value["message"], &record.message());
        let human = record.to_string();
        prop_assert!(printable_line(&human), "{:?}", human);
        prop_assert!(human.len() < 16 * 1024);
        prop_assert_eq!(&text(line.as_bytes()), &human);
    }

    #[test]
    fn any_bytes_read_back_are_shown_as_one_harmless_line(bytes in any::<Vec<u8>>(), text_line in hostile()) {
        for line in [bytes.as_slice(), text_line.as_bytes()] {
            prop_assert!(printable_line(&text(line)));
        }
    }

    #[test]
    fn csv_is_one_row_per_event_and_no_formula(event in event()) {
        let line = samples::record(1, event).to_ocsf();
        // Events are bounded when they are emitted, far below the longest line a log may have; these were not.
        prop_assume!(line.len() < 256 * 1024);
        let mut out = Vec::new();
        let exported = export(format!("{line}\nnot json\n").as_bytes(), Format::Csv, &mut out).unwrap();
        prop_assert_eq!((exported.lines, exported.unreadable), (1, 1));
        let row = String::from_utf8(out).unwrap();
        let row = row.strip_suffix('\n').unwrap();
        prop_assert!(printable_line(row));
        let cells = cells(row);
        prop_assert_eq!(cells.len(), stockade_audit::export::csv_header().split(',').count());
        prop_assert!(!cells.iter().any(|c| c.starts_with(['=', '+', '-', '@'])));
    }
}

/// Splits a row in which every cell is quoted.
fn cells(row: &str) -> Vec<String> {
    let (mut out, mut cell, mut chars) = (Vec::new(), String::new(), row.chars().peekable());
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                cell.push('"');
                chars.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(std::mem::take(&mut cell)),
            c => cell.push(c),
        }
    }
    assert!(!quoted, "{row}");
    out.push(cell);
    out
}
