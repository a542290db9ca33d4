use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use stockade_policy::{Policy, Posture, Snapshot, Source};
use stockade_types::Generation;

use super::{
    answer::{Answer, Note, answer},
    pool::Pool,
};

const POLICY: &str = "
version: 1
network:
  endpoints:
    a:
      hosts: [api.allowed.test, '*.wild.test']
      ports: [443]
      tls: passthrough
";

struct Fixture {
    policy: std::sync::Arc<Snapshot>,
    pool: Pool,
}

impl Fixture {
    fn new() -> Self {
        let policy = Policy::parse(&[Source::new("test.yaml", POLICY)]).unwrap();
        let policy = Snapshot::compile(&policy, &[], Generation::FIRST, Posture::Enforce).unwrap();
        Self { policy: policy.into(), pool: Pool::new(10, 2) }
    }

    fn raw(&self, query: &[u8]) -> Option<Answer> {
        answer(query, &self.policy, &self.pool, 60)
    }

    fn ask(&self, name: &str, kind: RecordType) -> (Message, Note) {
        let Answer { bytes, note } = self.raw(&query(name, kind)).unwrap();
        (Message::from_vec(&bytes).unwrap(), note)
    }
}

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

#[test]
fn a_permitted_name_gets_one_address_of_each_family_in_every_spelling() {
    let f = Fixture::new();
    let (a, _) = f.ask("API.Allowed.TEST.", RecordType::A);
    assert_eq!(a.metadata.id, 4711);
    assert_eq!(a.metadata.response_code, ResponseCode::NoError);
    assert!(matches!(a.answers[0].data, RData::A(ip) if ip.to_string() == "198.18.0.1"), "{a:?}");
    let (aaaa, _) = f.ask("api.allowed.test.", RecordType::AAAA);
    assert!(matches!(aaaa.answers[0].data, RData::AAAA(ip) if ip.to_string() == "fd53:746f:636b::1"));
}

#[test]
fn other_types_of_a_permitted_name_have_no_data() {
    let f = Fixture::new();
    for kind in [RecordType::HTTPS, RecordType::SVCB, RecordType::TXT, RecordType::MX, RecordType::ANY] {
        let (m, _) = f.ask("api.allowed.test.", kind);
        assert_eq!((m.metadata.response_code, m.answers.len()), (ResponseCode::NoError, 0), "{kind}");
    }
}

#[test]
fn every_other_name_does_not_exist_and_is_recorded() {
    let f = Fixture::new();
    for name in
        ["c2VjcmV0.attacker.test.", "allowed.test.", "api.allowed.test.evil.test.", "wild.test.", "a.b.wild.test."]
    {
        let (m, note) = f.ask(name, RecordType::A);
        assert_eq!(m.metadata.response_code, ResponseCode::NXDomain, "{name}");
        assert!(matches!(note, Note::Unknown(..)), "{name}: {note:?}");
    }
    for name in ["single.", "_a..wild.test", "a b.wild.test.", "a\\.wild.test."] {
        let Ok(parsed) = Name::from_ascii(name) else { continue };
        let (m, note) = f.ask(&parsed.to_ascii(), RecordType::A);
        assert_eq!(m.metadata.response_code, ResponseCode::NXDomain, "{name}");
        assert!(matches!(note, Note::Malformed(..) | Note::Unknown(..)), "{name}: {note:?}");
    }
}

#[test]
fn a_dot_inside_a_label_is_no_separator() {
    let f = Fixture::new();
    // One label `x.wild.test` would read as an allowed name.
    let mut bytes = query("x.wild.test.", RecordType::A);
    let at = bytes.windows(2).position(|w| w == b"\x01x").unwrap();
    bytes.splice(at..at + 12, *b"\x0bx.wild.test");
    let Answer { bytes, note } = f.raw(&bytes).unwrap();
    assert_eq!(Message::from_vec(&bytes).unwrap().metadata.response_code, ResponseCode::NXDomain);
    assert!(matches!(note, Note::Malformed(..)), "{note:?}");
    assert!(matches!(f.ask("x.wild.test.", RecordType::A).1, Note::NewWildcard), "control");
}

#[test]
fn a_full_pool_fails_the_name_and_leaves_the_others() {
    let f = Fixture::new();
    assert!(matches!(f.ask("a.wild.test.", RecordType::A).1, Note::NewWildcard));
    assert!(matches!(f.ask("b.wild.test.", RecordType::AAAA).1, Note::NewWildcard));
    let (m, note) = f.ask("c.wild.test.", RecordType::A);
    assert_eq!(m.metadata.response_code, ResponseCode::ServFail);
    assert!(matches!(note, Note::Exhausted(_)));
    assert!(matches!(f.ask("a.wild.test.", RecordType::A).1, Note::Nothing));
    assert_eq!(f.ask("api.allowed.test.", RecordType::A).0.answers.len(), 1);
}

#[test]
fn what_is_no_query_gets_an_error_or_silence() {
    let f = Fixture::new();
    assert!(f.raw(b"").is_none() && f.raw(&[0; 11]).is_none(), "no header");
    let code = |bytes: &[u8]| Message::from_vec(&f.raw(bytes).unwrap().bytes).unwrap().metadata.response_code;
    let good = query("api.allowed.test.", RecordType::A);
    assert_eq!(code(&good[..good.len() - 1]), ResponseCode::FormErr, "torn");
    let mut looped = good.clone();
    looped.splice(12.., [0xc0, 12, 0, 1, 0, 1]);
    assert_eq!(code(&looped), ResponseCode::FormErr, "compression loop");
    let mut response = good.clone();
    response[2] |= 0x80;
    assert!(f.raw(&response).is_none(), "a response is not answered");
    let mut update = good.clone();
    update[2] |= 5 << 3;
    assert_eq!(code(&update), ResponseCode::NotImp);
    let mut chaos = good;
    let last = chaos.len() - 1;
    chaos[last] = 3;
    assert_eq!(code(&chaos), ResponseCode::Refused, "class CH");
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_survived_and_any_answer_is_a_response(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
        let f = Fixture::new();
        if let Some(a) = f.raw(&bytes) {
            let m = Message::from_vec(&a.bytes).unwrap();
            proptest::prop_assert_eq!(m.metadata.message_type, MessageType::Response);
        }
    }
}
