use std::{fs, os::unix::ffi::OsStrExt, path::Path};

use super::*;

fn packet(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u32::try_from(body.len() + 1).unwrap();
    [&length.to_be_bytes()[..], &[kind], &body].concat()
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn init() -> Vec<u8> {
    packet(1, &[&3u32.to_be_bytes()])
}

/// Type and body of each reply to these requests, behind the version.
fn ask(requests: &[Vec<u8>]) -> Vec<(u8, Vec<u8>)> {
    let mut input = init();
    input.extend(requests.concat());
    let mut output = Vec::new();
    serve(input.as_slice(), &mut output).unwrap();
    let mut replies = Vec::new();
    let mut rest = output.as_slice();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let (body, next) = tail.split_at(u32::from_be_bytes(*length) as usize);
        replies.push((body[0], body[1..].to_vec()));
        rest = next;
    }
    assert_eq!(replies.remove(0).0, 2, "the version comes first");
    replies
}

fn status(reply: &(u8, Vec<u8>)) -> u32 {
    assert_eq!(reply.0, 101, "{reply:?}");
    u32::from_be_bytes(reply.1[4..8].try_into().unwrap())
}

const ID: [u8; 4] = 7u32.to_be_bytes();
const NO_ATTRIBUTES: [u8; 4] = [0; 4];

fn open(path: &Path, flags: u32) -> Vec<u8> {
    packet(3, &[&ID, &text(path.as_os_str().as_bytes()), &flags.to_be_bytes(), &NO_ATTRIBUTES])
}

fn handle() -> Vec<u8> {
    text(&0u32.to_be_bytes())
}

#[test]
fn a_file_is_written_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(std::ffi::OsStr::from_bytes(b"a \xff\n"));
    let write = packet(6, &[&ID, &handle(), &3u64.to_be_bytes(), &text(b"hello")]);
    let read = packet(5, &[&ID, &handle(), &0u64.to_be_bytes(), &100u32.to_be_bytes()]);
    let past = packet(5, &[&ID, &handle(), &8u64.to_be_bytes(), &100u32.to_be_bytes()]);
    let close = packet(4, &[&ID, &handle()]);
    let replies = ask(&[open(&path, 1 | 2 | 8), write, read, past, close.clone(), close]);
    assert_eq!(replies[0].0, 102);
    assert_eq!(status(&replies[1]), 0);
    assert_eq!(replies[2], (103, [&ID[..], &text(b"\0\0\0hello")].concat()));
    assert_eq!(status(&replies[3]), 1, "the end");
    assert_eq!(status(&replies[4]), 0);
    assert_eq!(status(&replies[5]), 2, "it is closed");
    assert_eq!(fs::read(path).unwrap(), b"\0\0\0hello");
}

#[test]
fn a_directory_is_listed_with_names_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"\xfe.txt")), "x").unwrap();
    let list = packet(12, &[&ID, &handle()]);
    let path = text(dir.path().as_os_str().as_bytes());
    let replies = ask(&[packet(11, &[&ID, &path]), list.clone(), list]);
    assert_eq!(replies[1].0, 104);
    let body = &replies[1].1;
    assert_eq!(body[4..8], 3u32.to_be_bytes());
    assert!(body.windows(5).any(|w| w == b"\xfe.txt"));
    assert!(body.windows(10).any(|w| w == b"-rw-r--r--"));
    assert_eq!(status(&replies[2]), 1);
}

#[test]
fn renaming_replaces_only_when_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&from, "new").unwrap();
    fs::write(&to, "old").unwrap();
    let names = [text(from.as_os_str().as_bytes()), text(to.as_os_str().as_bytes())].concat();
    assert_eq!(status(&ask(&[packet(18, &[&ID, &names])])[0]), 4);
    assert_eq!(fs::read(&to).unwrap(), b"old");
    let posix = packet(200, &[&ID, &text(b"posix-rename@openssh.com"), &names]);
    assert_eq!(status(&ask(&[posix])[0]), 0);
    assert_eq!(fs::read(&to).unwrap(), b"new");
}

#[test]
fn attributes_are_set_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, "12345").unwrap();
    let name = text(path.as_os_str().as_bytes());
    let attributes =
        [&13u32.to_be_bytes()[..], &2u64.to_be_bytes(), &0o600u32.to_be_bytes(), &[0, 0, 0, 9], &[0, 0, 0, 8]].concat();
    let replies = ask(&[packet(9, &[&ID, &name, &attributes]), packet(17, &[&ID, &name])]);
    assert_eq!(status(&replies[0]), 0);
    let (kind, body) = &replies[1];
    assert_eq!((*kind, &body[4..8]), (105, &15u32.to_be_bytes()[..]));
    assert_eq!(body[8..16], 2u64.to_be_bytes());
    assert_eq!(body[24..28], 0o100_600_u32.to_be_bytes());
    assert_eq!(body[28..36], [0, 0, 0, 9, 0, 0, 0, 8]);
}

#[test]
fn a_path_that_does_not_exist_yet_has_a_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x/../new");
    fs::create_dir(dir.path().join("x")).unwrap();
    let replies = ask(&[packet(16, &[&ID, &text(path.as_os_str().as_bytes())])]);
    let want = text(fs::canonicalize(dir.path()).unwrap().join("new").as_os_str().as_bytes());
    assert_eq!(replies[0].0, 104);
    assert!(replies[0].1[8..].starts_with(&want), "{replies:?}");
    assert_eq!(status(&ask(&[packet(16, &[&ID, &text(b"/no/such/place")])])[0]), 2);
}

#[test]
fn what_is_malformed_or_unknown_is_answered() {
    let cut = packet(3, &[&ID, &text(b"x")]);
    let long = packet(3, &[&ID, &u32::MAX.to_be_bytes()]);
    let bad_handle = packet(4, &[&ID, &text(b"toolong")]);
    let unknown = packet(99, &[&ID]);
    let extension = packet(200, &[&ID, &text(b"evil@example.com")]);
    let replies = ask(&[cut, long, bad_handle, unknown, extension, packet(1, &[&3u32.to_be_bytes()])]);
    assert_eq!(replies.iter().map(status).collect::<Vec<_>>(), [5, 5, 5, 8, 8, 5]);
}

#[test]
fn a_stream_that_is_no_sftp_ends() {
    let mut out = Vec::new();
    assert!(matches!(serve(&b"\xff\xff\xff\xffxxxx"[..], &mut out), Err(Error::Length(_))));
    assert!(matches!(serve(&b"\0\0\0\x01\x01"[..], &mut out), Err(Error::Length(1))));
    assert!(matches!(serve(&packet(4, &[&ID])[..], &mut out), Err(Error::NoVersion)));
    assert!(out.is_empty());
}

#[test]
fn handles_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, "").unwrap();
    let replies = ask(&vec![packet(11, &[&ID, &text(dir.path().as_os_str().as_bytes())]); handles::MOST + 1]);
    let opened = replies.iter().filter(|r| r.0 == 102).count();
    assert!(opened <= handles::MOST && replies.last().unwrap().0 == 101, "{opened}");
}
