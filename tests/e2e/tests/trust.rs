//! What the command trusts: the files and variables that it finds, and what it cannot do to them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, path::Path};

use stockade_testkit::{Mode, Stockade, skip};

const DIRECTORY: &str = "/run/stockade/tls";

#[test]
fn the_bundle_can_be_read_and_not_changed() {
    for mode in Mode::available() {
        let script = r#"
            cd /run/stockade/tls && ls && cat ca.pem > /tmp/before
            try() { "$@" 2>/dev/null && echo "changed by: $*"; }
            for file in ca.pem bundle.pem truststore.p12 wgetrc php.ini; do
                test -r $file && test -s $file || echo "cannot read $file"
                test $(stat -c %a $file) = 444 || echo "mode of $file: $(stat -c %a $file)"
                try sh -c "echo x >> $file"
                try sh -c ": > $file"
                try rm -f $file
                try mv $file other
                try ln -sf /tmp/other $file
                try cp /tmp/before $file
                try chmod 666 $file
                try touch $file
                try mount --bind /tmp/before $file
            done
            try mkdir new
            try touch new
            cd /run
            try mv stockade other
            try mv stockade/tls stockade/other
            try rmdir stockade/tls
            try mount -t tmpfs none stockade/tls
            try mount -o remount,rw /run/stockade
            try mount -o remount,rw /
            cmp /tmp/before stockade/tls/ca.pem && echo same
            stat -c 'owner %u' stockade/tls stockade/tls/ca.pem | sort -u
        "#;
        let run = Stockade::new(*mode).sh(script);
        run.assert_code(0);
        // Rootless there is no other user in the namespace: the mount holds, which nobody inside may change.
        let owner = if *mode == Mode::Root { 0 } else { 1000 };
        let want = format!("bundle.pem\nca.pem\nphp.ini\ntruststore.p12\nwgetrc\nsame\nowner {owner}\n");
        assert_eq!(run.text(), want, "{mode:?} {run:?}");
    }
}

#[test]
fn no_key_is_to_be_found_inside() {
    for mode in Mode::available() {
        // What is there to be found is found: the control of the search.
        let script = "search() { grep -rlE -- \"$1\" /run /tmp /var/tmp /dev/shm /proc/self/environ . 2>/dev/null; }
            search 'BEGIN CERTIFICATE' | sort -u
            search 'PRIVATE KEY'
            env | grep -i 'private key'
            ls /proc/1/fd /proc/1/environ /proc/1/mem >/dev/null 2>&1; cat /proc/1/environ 2>/dev/null
            head -c 10 /proc/1/mem 2>/dev/null
            echo searched";
        let run = Stockade::new(*mode).sh(script);
        let control = ["bundle.pem", "ca.pem"].map(|file| format!("{DIRECTORY}/{file}\n")).concat();
        assert_eq!(run.text(), format!("{control}searched\n"), "{mode:?} {run:?}");
    }
}

#[test]
fn every_sandbox_has_an_authority_of_its_own_and_the_machine_none() {
    let mode = Mode::available()[0];
    let certificate = || Stockade::new(mode).sh("cat /run/stockade/tls/ca.pem").text();
    let (one, two) = (certificate(), certificate());
    assert!(one.starts_with("-----BEGIN CERTIFICATE-----\n") && one != two, "{one}{two}");
    assert!(!Path::new(DIRECTORY).exists());
    let body = one.lines().nth(1).unwrap();
    for bundle in ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"] {
        assert!(!fs::read_to_string(bundle).unwrap_or_default().contains(body), "{bundle}");
    }
}

/// How many hours the sandbox's authority is good for from now on.
const HOURS: &str = r#"last() { date -d "$(openssl x509 -in /run/stockade/tls/ca.pem -noout -enddate | cut -d= -f2)" +%s; }
    echo $(( ($(last) - $(date +%s) + 1800) / 3600 ))"#;

#[test]
fn the_authority_ends_soon_after_a_command_whose_end_is_known() {
    for mode in Mode::available() {
        let hours = |options: &[&str]| {
            let stockade = options.iter().fold(Stockade::new(*mode), Stockade::arg);
            stockade.sh(HOURS).text().trim().to_owned()
        };
        assert_eq!(hours(&["--timeout", "1h"]), "26", "{mode:?}");
        assert_eq!(hours(&["--timeout=18446744073709551615h"]), "168", "{mode:?}: never longer than without");
        assert_eq!(hours(&[]), "168", "{mode:?}");
    }
}

#[test]
fn the_supervisors_environment_says_nothing_about_trust() {
    let mode = Mode::available()[0];
    let own = Stockade::new(mode).sh("cat /run/stockade/tls/ca.pem").text();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &own).unwrap();
    fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let line = own.lines().nth(1).unwrap();
    let script = format!("grep -cF '{line}' /run/stockade/tls/bundle.pem; echo $SSL_CERT_FILE");
    let with = |f: &dyn Fn(Stockade) -> Stockade| f(Stockade::new(mode)).sh(&script).text();
    let end = format!("{DIRECTORY}/bundle.pem\n");
    let by_environment =
        with(&|s| s.env("SSL_CERT_FILE", file.path()).env("SSL_CERT_DIR", file.path().parent().unwrap()));
    assert_eq!(by_environment, format!("0\n{end}"));
    let by_option = with(&|s| s.arg("--upstream-ca").arg(file.path()));
    assert_eq!(by_option, format!("1\n{end}"));

    fs::write(file.path(), "not a certificate").unwrap();
    let refused = Stockade::new(mode).arg("--upstream-ca").arg(file.path()).sh("echo ran");
    refused.assert_code(125);
    assert!(refused.stderr.contains("no certificate in it") && refused.text().is_empty(), "{refused:?}");
}

#[test]
fn what_the_operator_sets_is_replaced_where_it_would_break_trust_and_said() {
    let run = Stockade::new(Mode::available()[0])
        .arg("--env=GIT_SSL_CAINFO=/own.pem")
        .arg("--env=JAVA_TOOL_OPTIONS=-Xmx1g")
        .sh("echo $GIT_SSL_CAINFO; echo $JAVA_TOOL_OPTIONS");
    assert!(run.text().starts_with("/run/stockade/tls/bundle.pem\n-Xmx1g -Djavax.net.ssl.trustStore="), "{run:?}");
    assert!(run.stderr.contains("--env GIT_SSL_CAINFO: replaced by"), "{run:?}");
}

#[test]
fn java_opens_the_truststore_without_a_password() {
    if !Path::new("/usr/bin/keytool").exists() {
        skip!("keytool is not installed");
    }
    let script = "keytool -list -keystore $TRUST -storetype PKCS12 </dev/null 2>&1 | grep -E 'contains|stockade'";
    let script = script.replace("$TRUST", "/run/stockade/tls/truststore.p12");
    let run = Stockade::new(Mode::available()[0]).sh(&script);
    let text = run.text();
    assert!(text.contains("contains") && text.contains("stockade") && text.contains("trustedCertEntry"), "{run:?}");
}
