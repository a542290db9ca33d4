//! AWS signatures against a store that verifies them, those of each chunk of an upload included.

use std::{fs, process::Command};

use stockade_testkit::{Finished, Mode, Outer};

use super::{Services, assert_kept_apart, beside, clients, need_services, said};
use crate::{LONG, world::CANARY};

const ID: &str = "AKIACANARY0F7HQ2LMVT";
const STORE: &str = "s3s/bin/s3s-fs";
const POLICY: &str = r#"
network:
  endpoints:
    store: {hosts: [store.test], @site, credentials: [aws]}
    other: {hosts: [other.test], @site}
credentials:
  aws:
    env: AWS_SECRET_ACCESS_KEY
    source: file:secret
    inject: {sigv4: {service: s3, region: eu-west-1, access_key_id: {env: AWS_ACCESS_KEY_ID, source: env:REAL_ID}}}
"#;
/// The same hosts, where nothing is put in.
const FREE: &str = "
network:
  endpoints:
    store: {hosts: [store.test], @site}
";
const SCRIPT: &str = "
export AWS_EC2_METADATA_DISABLED=true AWS_MAX_ATTEMPTS=1 AWS_DEFAULT_REGION=eu-west-1 HOME=$PWD
echo placeholder: $AWS_SECRET_ACCESS_KEY; echo id: $AWS_ACCESS_KEY_ID
";

fn start(outer: &Outer) -> Services {
    let mut services = Services::start(outer);
    let data = outer.dir().join("store");
    fs::create_dir(&data).unwrap();
    let mut store = Command::new(clients().join(STORE));
    store.args(["--host", "127.0.0.1", "--port", "8014", "--access-key", ID, "--secret-key", CANARY]).arg(data);
    services.run(&mut store, "127.0.0.1:8014");
    services
}

fn run(services: &Services, mode: Mode, policy: &str, script: &str) -> Finished {
    let stockade = services.stockade(mode, policy).env("REAL_ID", ID);
    fs::copy(beside("bucket.py"), stockade.work().join("bucket.py")).unwrap();
    let python = clients().join("python");
    stockade.sh(&format!("export PYTHONPATH={}\n{SCRIPT}\n{script}", python.display()))
}

/// What the client says when it works. Names and queries hold what is written in several ways.
const WANT: [(&str, &str); 9] = [
    ("put_and_get", "('plain', 'x')"),
    ("odd_name", "('odd', 1)"),
    ("hashed", "hashed body"),
    ("unsigned", "unsigned body"),
    ("multipart", "(True, 9437184)"),
    ("presigned", "by a link"),
    ("chunks", "True"),
    ("small_chunks", "True"),
    ("trailer", "True"),
];

#[test]
fn a_store_takes_what_is_signed_anew() {
    need_services!(STORE, "python/boto3");
    let cases: Vec<_> = WANT.iter().map(|(case, _)| *case).collect();
    let script = format!("python3 bucket.py {} bad_region bad_host bad_service", cases.join(" "));
    Outer::run_within(LONG, |outer| {
        let mut services = start(outer);
        for mode in Mode::available() {
            let data = outer.dir().join("store/box");
            fs::remove_dir_all(data).ok();
            let run = run(&services, *mode, POLICY, &script);
            let shown = services.shown();
            for (case, want) in WANT {
                assert_eq!(said(&run, case), want, "{case} {mode:?} {run:?} {shown:#?}");
            }
            assert!(said(&run, "bad_region").starts_with("403 "), "{mode:?} {run:?}");
            assert!(said(&run, "bad_host").starts_with("403 "), "{mode:?} {run:?}");
            assert!(said(&run, "bad_service").contains("denied by stockade"), "{mode:?} {run:?}");
            assert_eq!(run.events.with("sigv4").len(), 2, "{mode:?} {run:?}");
            run.events.some("cred_scope");
            assert_kept_apart(&run, &shown);
            assert!(!run.text().contains(ID), "{mode:?} {run:?}");
            // Each request that arrived is signed, with the real key, and was taken.
            let real = |line: &String| line.contains(&format!("Credential={ID}"));
            assert!(shown.iter().all(|line| real(line) && line.starts_with("20")), "{mode:?} {shown:#?}");
            for kind in ["STREAMING-AWS4-HMAC-SHA256-PAYLOAD ", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER "] {
                assert!(shown.iter().any(|line| line.contains(kind)), "{kind} {mode:?} {shown:#?}");
            }
            let unsigned = |line: &&String| line.contains("UNSIGNED-PAYLOAD");
            assert!(shown.iter().filter(unsigned).count() >= 3, "{mode:?} {shown:#?}");
        }
    });
}

#[test]
fn the_aws_cli_and_curl_sign_with_placeholders_too() {
    need_services!(STORE, "python/awscli");
    let script = r#"
        aws() { python3 -m awscli --endpoint-url https://store.test "$@"; }
        try() { case=$1; shift; "$@" >$case.out 2>&1 && ok= || ok='failed '; echo "$case: $ok$(tr '\n' ' ' <$case.out)"; }
        mkdir .aws && printf '[default]\ns3 =\n    signature_version = s3v4\n' >.aws/config
        name='a b+c&d=(e)é.txt'
        echo from the cli >"$name"
        try make aws s3 mb s3://box
        try up aws s3 cp --no-progress "$name" s3://box/dir/
        try list aws s3 ls s3://box/dir/
        try down aws s3 cp --no-progress "s3://box/dir/$name" back
        echo "back: $(cat back)"
        link=$(aws s3 presign "s3://box/dir/$name")
        try linked curl -sS "$link"
        signed() { curl -sS --aws-sigv4 aws:amz:eu-west-1:s3 --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" "$@"; }
        try curl_put signed -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' -T "$name" https://store.test/box/by-curl
        try curl_get signed -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' https://store.test/box/by-curl
        try deleted aws s3 rm --quiet s3://box/by-curl
    "#;
    Outer::run_within(LONG, |outer| {
        let mut services = start(outer);
        let run = run(&services, Mode::available()[0], POLICY, script);
        let shown = services.shown();
        assert_eq!(said(&run, "back"), "from the cli", "{run:?} {shown:#?}");
        for case in ["linked", "curl_get"] {
            assert_eq!(said(&run, case).trim(), "from the cli", "{case} {run:?} {shown:#?}");
        }
        for case in ["make", "up", "list", "down", "curl_put", "deleted"] {
            assert!(!said(&run, case).starts_with("failed"), "{case} {run:?} {shown:#?}");
        }
        assert!(!outer.dir().join("store/box/by-curl").exists(), "{run:?}");
        assert_kept_apart(&run, &shown);
        assert!(!run.text().contains(ID), "{run:?}");
    });
}

#[test]
fn the_sdk_of_javascript_signs_with_placeholders_too() {
    need_services!(STORE, "node-awssdk/node_modules/@aws-sdk/client-s3");
    if Command::new("node").arg("--version").output().is_err() {
        stockade_testkit::skip!("node is not installed");
    }
    Outer::run_within(LONG, |outer| {
        let mut services = start(outer);
        let mode = Mode::available()[0];
        let stockade = services.stockade(mode, POLICY).env("REAL_ID", ID);
        fs::copy(beside("bucket.cjs"), stockade.work().join("bucket.cjs")).unwrap();
        let modules = clients().join("node-awssdk/node_modules");
        let run = stockade.sh(&format!("{SCRIPT}NODE_PATH={} node bucket.cjs", modules.display()));
        let shown = services.shown();
        let want = [("make", "200"), ("put", "200"), ("get", "from js"), ("stream", "100000"), ("list", "1")];
        for (case, want) in want.into_iter().chain([("links", "by a link")]) {
            assert_eq!(said(&run, case), want, "{case} {run:?} {shown:#?}");
        }
        assert_kept_apart(&run, &shown);
        assert!(!run.text().contains(ID), "{run:?}");
    });
}

/// The store is a judge: what is not signed anew is refused by it, and so is one spoilt chunk.
#[test]
fn the_store_refuses_what_is_signed_with_placeholders() {
    need_services!(STORE, "python/boto3");
    Outer::run_within(LONG, |outer| {
        let mut services = start(outer);
        let mode = Mode::available()[0];
        let first = run(&services, mode, POLICY, "python3 bucket.py put_and_get");
        assert_eq!(said(&first, "put_and_get"), "('plain', 'x')", "control: {first:?}");
        services.shown();
        let keys = |id: &str, secret: &str| format!("AWS_ACCESS_KEY_ID={id} AWS_SECRET_ACCESS_KEY={secret}");
        // Placeholders of another sandbox mean nothing here.
        let placeholders = keys(&said(&first, "id"), &said(&first, "placeholder"));
        let refused =
            run(&services, mode, FREE, &format!("{placeholders} python3 bucket.py put_and_get presigned hashed"));
        for case in ["put_and_get", "presigned", "hashed"] {
            assert!(said(&refused, case).starts_with("403 "), "{case} {refused:?}");
        }
        let shown = services.shown();
        assert!(shown.len() >= 3 && shown.iter().all(|line| line.starts_with("403 ")), "{shown:#?}");
        // By hand, with the real keys and without Stockade.
        let stockade = services.stockade(mode, FREE).unwrapped();
        for (from, to) in [(beside("bucket.py"), "bucket.py"), (outer.dir().join("ca.pem"), "ca.pem")] {
            fs::copy(from, stockade.work().join(to)).unwrap();
        }
        let trust = "export AWS_CA_BUNDLE=$PWD/ca.pem SSL_CERT_FILE=$PWD/ca.pem";
        let (real, python) = (keys(ID, CANARY), clients().join("python"));
        let script = format!(
            "{SCRIPT}\n{trust} PYTHONPATH={}\n{real} python3 bucket.py chunks spoilt\n{} python3 bucket.py hashed",
            python.display(),
            keys(ID, "wrong")
        );
        let bare = stockade.sh(&script);
        assert_eq!(said(&bare, "chunks"), "True", "{bare:?}");
        assert!(!said(&bare, "spoilt").starts_with("True"), "{bare:?}");
        assert!(said(&bare, "hashed").starts_with("403 "), "{bare:?}");
    });
}
