//! Text that is shown, and logs that are read back.

use std::path::Path;

use stockade_audit::{Entry, Format, VerifyError, export, verify::Verifier};
use stockade_types::Escaped;

use super::signature;

pub(super) const WORDS: &[&[u8]] = &[
    b"\n",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"\"}}\n",
    b",\"hash\":\"",
    b"\"prev\":\"\"",
    b"\"sequence\":1",
    b"\x1b[2J",
    b"\xc2\x9b",
    b"\xe2\x80\xae",
    b"\"segment\":{\"kind\":\"genesis\"}",
    b"\"torn\":{\"bytes\":1,\"sha256\":\"\"}",
    b"\"time\":0",
    b"null",
    b"1e99",
    b"\\u0000",
    b"\\ud800",
];

fn harmless(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c))
}

/// No control character passes, and the length is bounded.
pub(super) fn escape(data: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(data);
    let shown = Escaped(&text).to_string();
    assert!(harmless(&shown));
    assert!(shown.len() <= 512 * 12);
    signature((shown.len().min(40), shown.contains("\\u{"), shown.ends_with('…')))
}

/// Any bytes as a log: checking, showing and exporting are total and show nothing that a terminal would obey.
pub(super) fn log(data: &[u8]) -> u64 {
    let mut verifier = Verifier::new(None);
    let verified = verifier.file(Path::new("log"), data).and_then(|()| verifier.finish());
    if let Ok(verified) = &verified {
        assert!(verified.lines > 0 && verified.last >= verified.first);
        assert_eq!(verified.head.len(), 64);
    }
    let mut shown = Vec::new();
    let text = export(data, Format::Text, &mut shown).unwrap();
    let shown = String::from_utf8(shown).unwrap();
    assert_eq!(shown.lines().count() as u64, text.lines);
    assert!(shown.lines().all(harmless));
    let mut rows = Vec::new();
    let csv = export(data, Format::Csv, &mut rows).unwrap();
    assert_eq!(csv.lines + csv.unreadable, text.lines);
    assert!(String::from_utf8(rows).unwrap().lines().all(harmless));
    let mut copy = Vec::new();
    let ocsf = export(data, Format::Ocsf, &mut copy).unwrap();
    assert_eq!((ocsf.lines, ocsf.unreadable), (csv.lines, csv.unreadable));
    assert!(if ocsf.unreadable == 0 { copy == data } else { copy.len() < data.len() }, "events stay as they are");
    let outcome = match &verified {
        Ok(_) => "good".to_owned(),
        Err(VerifyError::Broken { why, .. }) => why.chars().filter(|c| !c.is_ascii_digit()).collect(),
        Err(other) => other.to_string(),
    };
    signature((outcome, Entry::parse(data).is_some(), csv.unreadable.min(3)))
}
