//! AWS's published examples: its Signature Version 4 test suite, and the S3 documentation's.

use http::Request;

use super::*;

const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const PLACEHOLDER: &str = "AKIAplaceholder";

fn secret(text: &str) -> Arc<Secret> {
    Arc::new(Secret::new(text.to_owned()))
}

fn keys(id: &str, key: &str, token: Option<&str>) -> Keys {
    Keys { access_key_id: secret(id), secret: secret(key), session_token: token.map(secret) }
}

const ANY: Bound<'static> = Bound { service: None, region: None, access_key_id: PLACEHOLDER };

/// A request as a client sends it, signed with its placeholder.
fn request(method: &str, target: &str, scope: &str, signed: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let field =
        format!("{ALGORITHM} Credential={PLACEHOLDER}/{scope}/aws4_request, SignedHeaders={signed}, Signature=00");
    request.header("authorization", field).body(()).unwrap().into_parts().0
}

fn signature(parts: &Parts) -> String {
    parts.headers["authorization"].to_str().unwrap().rsplit_once("Signature=").unwrap().1.to_owned()
}

/// A row of the test suite: service `service`, 30 August 2015.
fn suite(method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> String {
    let mut all = vec![("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")];
    all.extend(fields);
    let signed = all.iter().map(|(n, _)| n.to_ascii_lowercase()).collect::<Vec<_>>().join(";");
    let mut parts = request(method, target, "20150830/us-east-1/service", &signed, &all);
    let Some(Payload::Collect(unsigned)) = resign(&mut parts, keys(ID, SECRET, None), ANY).unwrap() else {
        panic!("the body's hash is known only when it is there")
    };
    unsigned.sign(&mut parts, body).unwrap();
    let field = parts.headers["authorization"].to_str().unwrap();
    assert!(field.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "));
    signature(&parts)
}

#[test]
fn the_published_test_suite() {
    let form = "application/x-www-form-urlencoded";
    let long = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let cases: &[(&str, String, &str)] = &[
        (
            "get-vanilla",
            suite("GET", "/", &[], b""),
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "get-vanilla-empty-query-key",
            suite("GET", "/?Param1=value1", &[], b""),
            "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
        ),
        (
            "get-vanilla-query-order-key-case",
            suite("GET", "/?Param2=value2&Param1=value1", &[], b""),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "get-vanilla-query-unreserved",
            suite("GET", &format!("/?{long}={long}"), &[], b""),
            "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
        ),
        (
            "get-header-key-duplicate",
            suite("GET", "/", &[("my-header1", "value2"), ("my-header1", "value2"), ("my-header1", "value1")], b""),
            "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
        ),
        (
            "get-header-value-trim",
            suite("GET", "/", &[("my-header1", " value1"), ("my-header2", " \"a   b   c\"")], b""),
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ),
        (
            "post-vanilla",
            suite("POST", "/", &[], b""),
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        (
            "post-header-value-case",
            suite("POST", "/", &[("my-header1", "VALUE1")], b""),
            "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
        ),
        (
            "post-x-www-form-urlencoded",
            suite("POST", "/", &[("content-type", form)], b"Param1=value1"),
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
    ];
    for (name, made, published) in cases {
        assert_eq!(made, published, "{name}");
    }
}

/// The examples of the S3 documentation: 24 May 2013.
mod s3 {
    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const REAL: &str = "AKIAIOSFODNN7EXAMPLE";
    const SCOPE: &str = "20130524/us-east-1/s3";
    const HOST: (&str, &str) = ("host", "examplebucket.s3.amazonaws.com");
    const STAMP: (&str, &str) = ("x-amz-date", "20130524T000000Z");

    fn resigned(parts: &mut Parts) -> Payload {
        resign(parts, keys(REAL, SECRET, None), ANY).unwrap().unwrap()
    }

    #[test]
    fn an_object_by_header() {
        let fields = [HOST, STAMP, ("range", "bytes=0-9"), (CONTENT_SHA256, EMPTY)];
        let mut parts = request("GET", "/test.txt", SCOPE, "host;range;x-amz-content-sha256;x-amz-date", &fields);
        assert!(matches!(resigned(&mut parts), Payload::AsIs));
        assert_eq!(signature(&parts), "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
        assert!(parts.headers["authorization"].is_sensitive());
    }

    #[test]
    fn an_upload_with_a_coded_path() {
        let hash = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
        let date = ("date", "Fri, 24 May 2013 00:00:00 GMT");
        let fields = [HOST, STAMP, date, (CONTENT_SHA256, hash), ("x-amz-storage-class", "REDUCED_REDUNDANCY")];
        let signed = "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class";
        let mut parts = request("PUT", "/test%24file.text", SCOPE, signed, &fields);
        assert!(matches!(resigned(&mut parts), Payload::AsIs));
        assert_eq!(signature(&parts), "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
    }

    #[test]
    fn a_presigned_query() {
        let target = format!(
            "/test.txt?X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential={PLACEHOLDER}%2F20130524%2Fus-east-1%2Fs3%2F\
             aws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=00"
        );
        let mut parts = Request::builder().uri(target).header(HOST.0, HOST.1).body(()).unwrap().into_parts().0;
        assert!(matches!(resigned(&mut parts), Payload::AsIs));
        let target = parts.uri.to_string();
        let signature = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
        assert!(target.ends_with(&format!("&X-Amz-Signature={signature}")), "{target}");
        assert!(target.contains(REAL) && !target.contains(PLACEHOLDER), "{target}");
    }

    fn chunked() -> (Parts, ChunkSigner) {
        let fields = [
            ("host", "s3.amazonaws.com"),
            STAMP,
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            (CONTENT_SHA256, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
            ("content-encoding", "aws-chunked"),
            ("x-amz-decoded-content-length", "66560"),
            ("content-length", "66824"),
        ];
        let signed = "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;\
                      x-amz-storage-class";
        let mut parts = request("PUT", "/examplebucket/chunkObject.txt", SCOPE, signed, &fields);
        let Payload::Chunked(signer) = resigned(&mut parts) else { panic!("not chunked") };
        (parts, signer)
    }

    fn body(signatures: [&str; 3]) -> Vec<u8> {
        let [first, second, last] = signatures.map(|s| format!(";chunk-signature={s}\r\n").into_bytes());
        let ends = [b"10000".to_vec(), first, vec![b'a'; 65536], b"\r\n400".to_vec(), second, vec![b'a'; 1024]];
        [ends.concat(), b"\r\n0".to_vec(), last, b"\r\n".to_vec()].concat()
    }

    #[test]
    fn chunks_are_signed_as_they_pass() {
        let (parts, _) = chunked();
        assert_eq!(signature(&parts), "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9");
        let published = body([
            "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
            "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
            "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
        ]);
        assert_eq!(published.len(), 66824);
        let placeholders = body([&*"0".repeat(64), &*"1".repeat(64), &*"2".repeat(64)]);
        for size in [1, 7, 1000, 65536, 100_000] {
            let (_, mut signer) = chunked();
            let (mut out, mut seen) = (Vec::new(), 0);
            for piece in placeholders.chunks(size) {
                signer.feed(piece, &mut out, &mut |data| seen += data.len()).unwrap();
            }
            signer.finish().unwrap();
            assert!(out == published && seen == 66560, "in pieces of {size}");
        }
    }

    #[test]
    fn malformed_chunks_are_refused() {
        let zeros = "0".repeat(64);
        let cases = [
            "10000\r\n".to_owned(),
            format!("0400;chunk-signature={zeros}\r\n"),
            format!("100001;chunk-signature={zeros}\r\n"),
            format!("g;chunk-signature={zeros}\r\n"),
            format!("1;chunk-signature={zeros}\r\nab\r\n"),
            format!("0;chunk-signature={zeros}\r\n\r\nmore"),
            "1".repeat(200),
        ];
        for case in cases {
            let (_, mut signer) = chunked();
            assert_eq!(signer.feed(case.as_bytes(), &mut Vec::new(), &mut |_| ()), Err(SignError::Chunk), "{case}");
        }
        let (_, mut signer) = chunked();
        signer.feed(format!("4;chunk-signature={zeros}\r\nab").as_bytes(), &mut Vec::new(), &mut |_| ()).unwrap();
        assert_eq!(signer.finish(), Err(SignError::Chunk), "it ended within a chunk");
    }
}

#[test]
fn a_session_token_is_the_real_one_and_signed() {
    let fields =
        [("host", "h.test"), ("x-amz-date", "20150830T123600Z"), (TOKEN, "placeholder"), (CONTENT_SHA256, EMPTY)];
    let signed = "host;x-amz-date;x-amz-security-token";
    let mut with = request("GET", "/", "20150830/us-east-1/service", signed, &fields);
    resign(&mut with, keys(ID, SECRET, Some("real-token")), ANY).unwrap();
    assert_eq!(with.headers[TOKEN], "real-token");
    assert!(with.headers[TOKEN].is_sensitive());
    let field = with.headers["authorization"].to_str().unwrap();
    assert!(field.contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,"), "{field}");
    let mut without = request("GET", "/", "20150830/us-east-1/service", signed, &fields);
    resign(&mut without, keys(ID, SECRET, None), ANY).unwrap();
    assert!(!without.headers.contains_key(TOKEN));
    assert!(!without.headers["authorization"].to_str().unwrap().contains("security-token"));
}

#[test]
fn what_cannot_be_signed_again_is_refused() {
    let stamp = ("x-amz-date", "20150830T123600Z");
    let refused = |scope: &str, target: &str, fields: &[(&str, &str)], bound: Bound<'_>| {
        let mut parts = request("GET", target, scope, "host;x-amz-date", fields);
        resign(&mut parts, keys(ID, SECRET, None), bound).unwrap_err()
    };
    let scope = "20150830/us-east-1/s3";
    let eu = Bound { region: Some("eu-west-1"), ..ANY };
    assert_eq!(refused(scope, "/", &[stamp], eu), SignError::Scope { what: "region" });
    let sts = Bound { service: Some("sts"), ..ANY };
    assert_eq!(refused(scope, "/", &[stamp], sts), SignError::Scope { what: "service" });
    let other = Bound { access_key_id: "AKIAother", ..ANY };
    assert_eq!(refused(scope, "/", &[stamp], other), SignError::Foreign);
    assert_eq!(refused(scope, "/", &[], ANY), SignError::Date);
    assert_eq!(refused("20150831/us-east-1/s3", "/", &[stamp], ANY), SignError::Date);
    assert_eq!(refused("20150830/us/east/s3", "/", &[stamp], ANY), SignError::Malformed);
    assert_eq!(refused("20150830/us east/s3", "/", &[stamp], ANY), SignError::Malformed);
    assert_eq!(refused(scope, "/?a=b+c", &[stamp], ANY), SignError::Query);
    assert_eq!(refused(scope, "/?a=%zz", &[stamp], ANY), SignError::Query);
    assert_eq!(refused(scope, "/?X-Amz-Signature=1", &[stamp], ANY), SignError::Twice);
    assert_eq!(refused(scope, "/", &[stamp, ("authorization", "Basic x")], ANY), SignError::Twice);
    assert_eq!(refused(scope, "/", &[stamp, (CONTENT_SHA256, "SOMETHING-NEW")], ANY), SignError::Payload);
    for (field, why) in [
        ("Bearer x", SignError::Algorithm),
        ("AWS4-ECDSA-P256-SHA256 Credential=a/b/c", SignError::Algorithm),
        ("AWS AKIAplaceholder:frJIUN8DYpKDtOLCwo//yllqDzg=", SignError::Algorithm),
        ("AWS4-HMAC-SHA256", SignError::Malformed),
        ("AWS4-HMAC-SHA256 Credential=a/20150830/r/s/aws4_request, SignedHeaders=host", SignError::Malformed),
        ("AWS4-HMAC-SHA256 Credential=a, Credential=b, SignedHeaders=host, Signature=0", SignError::Malformed),
    ] {
        let mut parts = Request::builder().header("authorization", field).body(()).unwrap().into_parts().0;
        assert_eq!(resign(&mut parts, keys(ID, SECRET, None), ANY).unwrap_err(), why, "{field}");
    }
}

#[test]
fn an_anonymous_request_is_left_alone() {
    let mut parts = Request::builder().uri("/public?list-type=2").body(()).unwrap().into_parts().0;
    assert!(resign(&mut parts, keys(ID, SECRET, None), ANY).unwrap().is_none());
    assert_eq!(parts.uri, "/public?list-type=2");
}

#[test]
fn keys_are_not_shown() {
    let fields = [("host", "h.test"), ("x-amz-date", "20150830T123600Z")];
    let mut parts = request("PUT", "/", "20150830/us-east-1/s3", "host;x-amz-date", &fields);
    let payload = resign(&mut parts, keys("AKIAcanary", "canary-secret", Some("canary-token")), ANY).unwrap();
    let Some(Payload::Collect(unsigned)) = &payload else { panic!("{payload:?}") };
    unsigned.sign(&mut parts, b"body").unwrap();
    let shown = format!("{payload:?} {parts:?} {:?}", keys("canary", "canary", None));
    assert!(!shown.contains("canary"), "{shown}");
}
