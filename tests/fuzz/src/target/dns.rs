//! Questions to the name server inside the sandbox.

use std::sync::{Arc, LazyLock};

use stockade_egress::first_answer;
use stockade_policy::{Policy, Posture, Snapshot, Source};
use stockade_types::Generation;

use super::signature;

pub(super) const WORDS: &[&[u8]] = &[
    b"\x07allowed\x04test\x00",
    b"\x04wild\x04test\x00",
    b"\x01a",
    b"\x3f",
    b"\xc0\x0c",
    b"\x00\x01\x00\x01",
    b"\x00\x1c\x00\x01",
    b"\x00\x41\x00\x01",
    b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00",
    b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00",
    b"\x80",
    b"\xff\xff",
];

const POLICY: &str = "
version: 1
network:
  endpoints:
    a: {hosts: [allowed.test, '*.wild.test'], ports: [80]}
";

static SNAPSHOT: LazyLock<Arc<Snapshot>> = LazyLock::new(|| {
    let policy = Policy::parse(&[Source::new("fuzz.yaml", POLICY)]).unwrap();
    Arc::new(Snapshot::compile(&policy, &[], Generation::FIRST, Posture::Enforce).unwrap())
});

const HEADER: usize = 12;

/// What is answered is a response to this very query, small, with at most one address, which only a success has; and
/// no response is ever answered, so two servers cannot keep each other busy.
pub(super) fn query(data: &[u8]) -> u64 {
    let Some(response) = first_answer(data, &SNAPSHOT) else { return 0 };
    assert!((HEADER..=data.len() + 64).contains(&response.len()), "{} of {}", response.len(), data.len());
    assert_eq!(response[..2], data[..2], "another id");
    assert_eq!(response[2] & 0x80, 0x80, "not marked as a response");
    let (code, answers) = (response[3] & 0x0f, u16::from_be_bytes([response[6], response[7]]));
    assert!(answers == 0 || (answers == 1 && code == 0), "{answers} answers, code {code}");
    assert_eq!(first_answer(&response, &SNAPSHOT), None, "a response was answered");
    signature((code, answers, response.len() / 16))
}
