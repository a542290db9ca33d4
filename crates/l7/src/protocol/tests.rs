use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};

use super::*;

/// A request to be read.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    fields: Vec<(String, String)>,
    max_body: usize,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        let target = crate::Target::parse(target, crate::Slashes::Plain).unwrap();
        Self {
            method: method.into(),
            path: target.path().into(),
            query: target.pairs().to_vec(),
            fields: Vec::new(),
            max_body: MAX_BODY,
        }
    }

    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    pub(crate) fn max_body(mut self, max_body: usize) -> Self {
        self.max_body = max_body;
        self
    }

    pub(crate) fn head(&self) -> Head<'_> {
        Head {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            fields: &self.fields,
            max_body: self.max_body,
        }
    }
}

fn read(reading: Reading, pieces: &[&[u8]]) -> Result<Vec<Operation>, Unreadable> {
    let Reading::Body(mut reader) = reading else { panic!("decided by the head: {reading:?}") };
    pieces.iter().try_for_each(|piece| reader.feed(piece))?;
    reader.finish()
}

/// Reads a body whole, in two pieces cut everywhere, and byte by byte: the outcome must be the same.
pub(crate) fn every_cut(reading: impl Fn() -> Reading, body: &[u8]) -> Result<Vec<Operation>, Unreadable> {
    let whole = read(reading(), &[body]);
    for at in 0..=body.len().min(400) {
        let (head, tail) = body.split_at(at);
        assert_eq!(read(reading(), &[head, tail]), whole, "cut at {at}");
    }
    assert_eq!(read(reading(), &body.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
    whole
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const CALL: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"m"}"#;

fn json() -> Request {
    Request::new("POST", "/").field("content-type", "application/json")
}

fn as_gzip(body: &[u8], max_body: usize) -> Result<Vec<Operation>, Unreadable> {
    let request = json().field("content-encoding", "GZIP").max_body(max_body);
    every_cut(|| reader(Kind::JsonRpc, &request.head()).unwrap(), body)
}

#[test]
fn gzip_is_read_if_it_is_exactly_one_member() {
    let zipped = gzip(CALL);
    assert_eq!(as_gzip(&zipped, MAX_BODY).map(|o| o.len()), Ok(1));
    for n in 0..zipped.len() {
        assert_eq!(as_gzip(&zipped[..n], MAX_BODY), Err(Unreadable::Gzip), "cut after {n}");
    }
    for broken in [[&zipped[..], b"x"].concat(), [&zipped[..], &zipped[..]].concat(), [&zipped[..], &[0; 9]].concat()] {
        assert_eq!(as_gzip(&broken, MAX_BODY), Err(Unreadable::Gzip));
    }
    let mut checksum = zipped.clone();
    let at = checksum.len() - 8;
    checksum[at] ^= 1;
    assert_eq!(as_gzip(&checksum, MAX_BODY), Err(Unreadable::Gzip));
    assert_eq!(as_gzip(CALL, MAX_BODY), Err(Unreadable::Gzip), "not gzip, but so labelled");
    let unlabelled = every_cut(|| reader(Kind::JsonRpc, &json().head()).unwrap(), &zipped);
    assert_eq!(unlabelled, Err(Unreadable::NotJson), "gzip, but not so labelled");
    assert_eq!(as_gzip(&gzip(&zipped), MAX_BODY), Err(Unreadable::NotJson), "encoded twice");
}

#[test]
fn bodies_are_bounded_as_sent_and_as_decoded() {
    let padded = |n: usize| [CALL, &vec![b' '; n - CALL.len()]].concat();
    let plain = |n: usize| every_cut(|| reader(Kind::JsonRpc, &json().max_body(1000).head()).unwrap(), &padded(n));
    assert!(plain(1000).is_ok());
    assert_eq!(plain(1001), Err(Unreadable::TooLarge));
    assert!(as_gzip(&gzip(&padded(1000)), 1000).is_ok());
    assert_eq!(as_gzip(&gzip(&padded(1001)), 1000), Err(Unreadable::TooLarge));
    let bomb = gzip(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < MAX_BODY);
    let request = json().field("content-encoding", "gzip");
    assert_eq!(read(reader(Kind::JsonRpc, &request.head()).unwrap(), &[&bomb]), Err(Unreadable::TooLarge));
}

#[test]
fn every_protocol_has_a_row_and_a_row_has_its_own_word() {
    let kinds: std::collections::BTreeSet<_> = PROTOCOLS.iter().map(|row| row.kind).collect();
    let words: std::collections::BTreeSet<_> = PROTOCOLS.iter().map(|row| row.word).collect();
    // A new kind makes `reader` not compile; a kind without a row is seen here.
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), [Kind::Grpc, Kind::GraphQl, Kind::JsonRpc, Kind::Mcp]);
    assert_eq!(words.len(), PROTOCOLS.len());
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let missing: Vec<String> = PROTOCOLS
        .iter()
        .flat_map(|Row { word, .. }| {
            [
                format!("crates/l7/src/{word}.rs"),
                format!("policies/base/{word}.rego"),
                format!("tests/fuzz/corpus/{word}"),
            ]
        })
        .filter(|path| !root.join(path).exists())
        .collect();
    assert!(missing.is_empty(), "a protocol lacks {}", missing.join(", "));
}
