use std::path::PathBuf;

use super::*;
use crate::{
    diagnostic::{Rejected, Report, Source},
    yaml,
};

fn parsed(text: &str) -> Result<BTreeMap<String, Credential>, Rejected> {
    let source = Source::new("p.yaml", text);
    let root = yaml::parse(&source)?;
    let mut report = Report::default();
    let mut r = Reader { file: "p.yaml", report: &mut report };
    let found = credentials(&mut r, &Trail::Key(&Trail::Root, "credentials"), &root, &"p.yaml".into());
    report.finish(found)
}

fn inject(text: &str) -> Result<Inject, String> {
    let text = format!("t: {{env: T, source: 'env:T', inject: {text}}}");
    parsed(&text).map(|mut all| all.remove("t").unwrap().inject).map_err(|e| e.to_string())
}

#[test]
fn every_form() {
    let text = |t: &str| t.to_owned();
    for (form, want) in [
        (
            "{header: authorization, value: 'Bearer {secret}!'}",
            Inject::Header { name: text("authorization"), before: text("Bearer "), after: text("!") },
        ),
        ("{basic: user}", Inject::Basic { user: text("user") }),
        ("{query: key}", Inject::Query { name: text("key") }),
        ("{path: '/bot{secret}/**'}", Inject::Path { before: text("/bot"), after: text("/**") }),
        ("{body: json, field: /auth/token}", Inject::Json { pointer: text("/auth/token") }),
        ("{body: form, field: client_secret}", Inject::Form { name: text("client_secret") }),
    ] {
        assert_eq!(inject(form), Ok(want), "{form}");
    }
    let aws = "aws: {env: AWS_SECRET_ACCESS_KEY, source: 'file:keys/secret', approval: never, inject: {sigv4: \
        {service: s3, access_key_id: {env: AWS_ACCESS_KEY_ID, source: 'env:ID'}, session_token: {env: AWS_SESSION_TOKEN, source: 'env:ST'}}}}";
    let all = parsed(aws).unwrap();
    let aws = &all["aws"];
    assert_eq!(aws.source, Store::File(PathBuf::from("keys/secret")));
    assert_eq!(
        aws.variables().collect::<Vec<_>>(),
        ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN"]
    );
    let Inject::Sigv4(signing) = &aws.inject else { panic!("{aws:?}") };
    assert_eq!((signing.service.as_deref(), signing.region.as_deref()), (Some("s3"), None));
    assert_eq!(signing.access_key_id, Part { env: text("AWS_ACCESS_KEY_ID"), source: Store::Env(text("ID")) });
}

#[test]
fn what_is_refused() {
    for (form, want) in [
        ("{}", "`inject` names one place"),
        ("{header: a, value: '{secret}', query: b}", "`inject` names one place"),
        ("{header: authorization}", "`value` is missing"),
        ("{query: a, value: '{secret}'}", "`value` goes with `header`"),
        ("{basic: u, field: x}", "`field` goes with `body`"),
        ("{body: json}", "`field` is missing"),
        ("{body: xml, field: a}", "unknown kind of body `xml`"),
        ("{body: json, field: token}", "not a JSON pointer"),
        ("{header: Authorization, value: '{secret}'}", "header names are lower case"),
        ("{header: a, value: secret}", "must hold `{secret}` once"),
        ("{header: a, value: '{secret}{secret}'}", "must hold `{secret}` once"),
        ("{path: '/bot'}", "must hold `{secret}` once"),
        ("{path: 'bot{secret}'}", "a path begins with `/`"),
        ("{basic: 'a:b'}", "not a user name"),
        ("{sigv4: {service: s3}}", "`access_key_id` is missing"),
        ("{sigv4: {service: 's 3', access_key_id: {env: A, source: 'env:A'}}}", "letters, digits and `-`"),
        ("{sigv4: {access_key_id: {env: A}}}", "`source` is missing"),
        ("{sigv4: {access_key_id: {env: A, source: 'env:A'}, session_token: {}}}", "`env` is missing"),
    ] {
        let said = inject(form);
        assert!(said.as_ref().is_err_and(|e| e.contains(want)), "{form}: {said:?}");
    }
    for (text, want) in [
        ("t: {env: T, source: 'vault:x', inject: {basic: u}}", "this store: not available yet"),
        ("t: {env: T, source: 'vualt:x', inject: {basic: u}}", "did you mean `vault:`?"),
        ("t: {env: T, source: 'env:1X', inject: {basic: u}}", "not the name of an environment variable"),
        ("t: {env: T, source: 'file:../x', inject: {basic: u}}", "`..` is not allowed"),
        (
            "t: {env: T, source: 'env:T', inject: {basic: u}, approval: first-use}",
            "approval by a person: not available yet",
        ),
        ("t: {source: 'env:T', inject: {basic: u}}", "`env` is missing"),
    ] {
        let said = parsed(text).map(|_| ()).unwrap_err().to_string();
        assert!(said.contains(want), "{text}: {said}");
    }
}
