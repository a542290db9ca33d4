use std::time::Duration;

use super::*;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGzTfNDc2Jc0sV5eG3lCqsfkYjwVuCcc7cy8DVLmGMnh";
const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

fn key(text: &str) -> PublicKey {
    PublicKey::from_openssh(text).unwrap()
}

fn access(line: &str) -> Option<Access> {
    AuthorizedKeys::parse(line).unwrap().holder(&key(KEY), Some([192, 0, 2, 7].into()), SystemTime::now())
}

fn fault(line: &str) -> String {
    AuthorizedKeys::parse(line).unwrap_err().to_string()
}

#[test]
fn a_listed_key_comes_in_and_another_does_not() {
    let keys = AuthorizedKeys::parse(&format!("# mine\n\n  {KEY} me@laptop with blanks\r\n")).unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys.holder(&key(KEY), None, SystemTime::now()), Some(Access::full()));
    assert_eq!(keys.holder(&key(OTHER), None, SystemTime::now()), None);
}

#[test]
fn an_authority_is_no_user() {
    let keys = AuthorizedKeys::parse(&format!("cert-authority,principals=\"a, b\" {KEY}")).unwrap();
    assert_eq!(keys.holder(&key(KEY), None, SystemTime::now()), None);
    let options = keys.authority(key(KEY).key_data(), None, SystemTime::now()).unwrap();
    assert_eq!(options.principals.as_deref(), Some(&["a".to_owned(), "b".to_owned()][..]));
    let user = AuthorizedKeys::parse(KEY).unwrap();
    assert!(user.authority(key(KEY).key_data(), None, SystemTime::now()).is_none());
}

#[test]
fn options_restrict() {
    let restricted = access(&format!("restrict,pty,command=\"echo \\\"a b\\\" , c\" {KEY}")).unwrap();
    assert_eq!((restricted.pty, restricted.forwarding), (true, false));
    assert_eq!(restricted.command.as_deref(), Some("echo \"a b\" , c"));
    let open = access(&format!("permitopen=\"localhost:8080\",permitopen=\"[::1]:*\" {KEY}")).unwrap();
    assert!(open.may_open("localhost", ([127, 0, 0, 1], 8080).into()));
    assert!(!open.may_open("localhost", ([127, 0, 0, 1], 8081).into()));
    assert!(open.may_open("::1", "[::1]:9".parse().unwrap()));
    assert!(!access(&format!("no-port-forwarding {KEY}")).unwrap().may_open("localhost", ([127, 0, 0, 1], 1).into()));
}

#[test]
fn from_is_about_addresses() {
    assert!(access(&format!("from=\"192.0.2.0/24\" {KEY}")).is_some());
    assert!(access(&format!("from=\"192.0.2.0/24,!192.0.2.7\" {KEY}")).is_none());
    assert!(access(&format!("from=\"0.0.0.0/0\" {KEY}")).is_some());
    assert!(access(&format!("from=\"10.0.0.0/8,::1\" {KEY}")).is_none());
    let keys = AuthorizedKeys::parse(&format!("from=\"::/0\" {KEY}")).unwrap();
    assert!(keys.holder(&key(KEY), None, SystemTime::now()).is_none(), "a unix socket is from nowhere");
    assert!(fault(&format!("from=\"*.example.com\" {KEY}")).contains("line 1: `*.example.com` is not an address"));
}

#[test]
fn keys_expire() {
    let keys = AuthorizedKeys::parse(&format!("expiry-time=\"20200229\" {KEY}")).unwrap();
    let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_582_934_400);
    assert!(keys.holder(&key(KEY), None, noon - Duration::from_secs(1)).is_some());
    assert!(keys.holder(&key(KEY), None, noon).is_none());
    assert!(fault(&format!("expiry-time=\"20201301\" {KEY}")).contains("expiry-time `20201301` is not"));
}

#[test]
fn what_is_not_understood_is_an_error_with_its_line() {
    for (line, told) in [
        (format!("environment=\"A=b\" {KEY}"), "option `environment` is not supported"),
        (format!("no-ptty {KEY}"), "option `no-ptty` is not supported"),
        (format!("command=\"x {KEY}"), "a quote is not closed"),
        (format!("command=x {KEY}"), "must stand in quotes"),
        (format!("command {KEY}"), "needs a value"),
        (format!("restrict, {KEY}"), "an option is empty"),
        (format!("principals=\"a\" {KEY}"), "goes with `cert-authority`"),
        ("ssh-ed25519 AAAA".to_owned(), "not a key"),
        ("hello".to_owned(), "no key"),
    ] {
        let fault = fault(&format!("{OTHER}\n{line}"));
        assert!(fault.starts_with("line 2: ") && fault.contains(told), "{line}: {fault}");
    }
    assert_eq!(fault("# nothing\n"), Error::Empty.to_string());
}

#[test]
fn keys_that_cannot_be_checked_are_left_out_and_named() {
    let keys = AuthorizedKeys::parse(&format!("ssh-rsa AAAAB3NzaC1yc2E= old\n{KEY}\n")).unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys.remarks, ["line 1: ssh-rsa keys are not supported; use an ssh-ed25519 key"]);
}

#[test]
fn files_are_bounded() {
    assert_eq!(AuthorizedKeys::parse(&"#".repeat(KEYS_FILE + 1)).unwrap_err(), Error::TooLarge);
    let many = format!("{KEY}\n").repeat(KEYS + 1);
    assert_eq!(AuthorizedKeys::parse(&many).unwrap_err(), Error::TooLarge);
    assert!(fault(&format!("command=\"{}\" {KEY}", "x".repeat(KEYS_LINE))).contains("longer than"));
}
