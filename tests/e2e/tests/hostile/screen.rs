//! SSH-13, the half that is no terminal of the sandbox: what Stockade prints about the command cannot speak to the
//! operator's terminal.

use std::{fs, path::Path, process::Command};

use stockade_testkit::{Finished, Mode, Outer, Stockade, runner::program};

/// Sets the clipboard, asks for the title, asks for a setting, clears the screen; a C1 control, a bell, a return.
const EVIL: &str = "\u{1b}]52;c;cHduZWQ=\u{7}\u{1b}[21t\u{1b}P$qm\u{1b}\\\u{1b}[2J\u{9b}2J\r\u{202e}";

#[track_caller]
fn harmless(text: &str, context: &str) {
    let bad: Vec<char> =
        text.chars().filter(|c| c.is_control() && !matches!(c, '\n' | '\t') || matches!(c, '\u{202e}')).collect();
    // A line may end in a carriage return, for a terminal in raw mode.
    let returns = text.matches("\r\n").count();
    assert_eq!(bad.len(), returns, "{context}: {bad:?} in {text:?}");
}

fn stockade(args: &[&str], log: &Path) -> String {
    let out = Command::new(program(false)).args(args).arg(log).output().unwrap();
    assert!(out.status.success(), "{args:?} {out:?}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn everywhere(run: &Finished, what: &str, context: &str) {
    harmless(&run.stderr, &format!("{context}, stderr"));
    assert!(run.stderr.contains(what), "tripwire: it was printed, escaped: {context} {run:?}");
}

#[test]
fn what_is_printed_about_the_command_is_escaped() {
    Outer::run(|outer| {
        for mode in Mode::available() {
            // Arguments, hosts and paths of requests, names of programs, in everything that is said while it runs.
            let log = outer.dir().join(format!("{mode:?}"));
            fs::create_dir(&log).unwrap();
            fs::set_permissions(&log, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
            let log = log.join("audit.jsonl");
            let host = format!("proxy:CONNECT evil{EVIL}.test:443 HTTP/1.1\\r\\n\\r\\n");
            let path = format!("proxy:GET http://denied.test/{EVIL} HTTP/1.1\\r\\nHost: denied.test\\r\\n\\r\\n");
            let run = Stockade::new(*mode).arg("--log-level").arg("debug").audit_log(&log).probe(&[&host, &path]);
            everywhere(&run, "]52;c;", &format!("{mode:?}"));
            for args in [&["audit", "tail"][..], &["audit", "export", "--format", "csv"]] {
                let text = stockade(args, &log);
                harmless(&text, &format!("{mode:?} {args:?}"));
                assert!(text.contains("]52;c;"), "tripwire: the argument is there: {mode:?} {args:?} {text}");
            }
            harmless(&fs::read_to_string(&log).unwrap(), "the log itself");

            let run = Stockade::new(*mode).run(&[format!("no{EVIL}program")]);
            assert_eq!(run.code(), 127, "{mode:?} {run:?}");
            everywhere(&run, "]52;c;", "a program that is not there");
            let run = Stockade::new(*mode).arg("--policy").arg(format!("/nonexistent/{EVIL}")).sh("true");
            assert_eq!(run.code(), 125, "{mode:?} {run:?}");
            everywhere(&run, "]52;c;", "a policy that is not there");
            let key = serde_json::to_string(EVIL).unwrap();
            let run = Stockade::new(*mode).policy(&format!("version: 1\n{key}: 1\n")).sh("true");
            assert_eq!(run.code(), 125, "{mode:?} {run:?}");
            harmless(&run.stderr, "a key of the policy");

            // A directory whose name somebody else chose.
            let place = Stockade::new(*mode);
            let dir = place.work().join(format!("dir{EVIL}"));
            fs::create_dir(&dir).unwrap();
            let run = place.workspace(dir.join("absent")).sh("true");
            assert_eq!(run.code(), 125, "{mode:?} {run:?}");
            everywhere(&run, "]52;c;", "a workspace");
        }
        // Control: what the command itself prints is its own and passes as it is.
        let run = Stockade::new(Mode::Rootless).run(&["printf", "%s", EVIL]);
        assert_eq!(run.text(), EVIL);
    });
}
