use super::*;
use crate::testing::Side;

fn parse(roots: Option<&[u8]>, identity: Option<(&[u8], &[u8])>) -> Result<Extra, ExtraError> {
    Extra::parse(ExtraPem { roots, identity })
}

#[test]
fn bad_input_is_named() {
    let side = Side::new();
    let chain = side.roots.pem().as_bytes();
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let cases: [(Result<Extra, ExtraError>, &str); 6] = [
        (parse(Some(b"junk"), None), "the endpoint's authorities: no certificate in it"),
        (parse(None, Some((b"", key.as_bytes()))), "the client certificate has 0 PEM blocks"),
        (parse(None, Some((chain, b"junk"))), "the client's private key is not an unencrypted PEM block"),
        (parse(None, Some((chain, key.as_bytes()))), "the client's private key does not fit its certificate"),
        (parse(None, Some((&chain.repeat(17), key.as_bytes()))), "the client certificate has 17 PEM blocks"),
        (parse(None, Some((&chain[..chain.len() / 2], key.as_bytes()))), "client certificate 1 is malformed"),
    ];
    for (result, want) in cases {
        let text = result.unwrap_err().to_string();
        assert!(text.starts_with(want), "{text}");
        assert!(!text.contains(key.lines().nth(1).unwrap()));
    }
}

#[test]
fn equal_content_is_equal_and_nothing_is_printed() {
    let side = Side::new();
    let roots = side.roots.pem().as_bytes();
    let other = Side::new();
    let one = parse(Some(roots), None).unwrap();
    assert_eq!(one.id(), parse(Some(roots), None).unwrap().id());
    assert_ne!(one.id(), parse(Some(other.roots.pem().as_bytes()), None).unwrap().id());
    assert_ne!(one.id(), parse(None, None).unwrap().id());
    assert_eq!(format!("{one:?}"), "Extra { roots: true, identity: false, .. }");
}
