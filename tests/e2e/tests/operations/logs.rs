//! What Stockade says on stderr, for programs to read.

use serde_json::Value;
use stockade_testkit::{Mode, Outer, Stockade};

use super::*;

fn lines(stderr: &str) -> Vec<Value> {
    let parse = |l: &str| serde_json::from_str::<Value>(l).unwrap_or_else(|e| panic!("{e} in {l}\nof\n{stderr}"));
    stderr.lines().map(parse).collect()
}

#[test]
fn every_line_is_an_object() {
    Outer::run(|_| {
        let (_site, _dns) = world();
        for mode in Mode::available() {
            for level in ["error", "notice", "info", "debug"] {
                let stockade =
                    Stockade::new(*mode).policy(POLICY).arg("--log-format=json").arg("--log-level").arg(level);
                let run = stockade.sh("curl -s http://no.test/; curl -s http://up.test/ >/dev/null");
                let said = lines(&run.stderr);
                assert_eq!(said.is_empty(), level == "error", "{mode:?} {level} {run:?}");
                for line in &said {
                    let (time, level, message) = (&line["time"], &line["level"], &line["message"]);
                    assert!(time.as_str().is_some_and(|t| t.ends_with('Z')) && level.is_string(), "{line}");
                    assert!(message.as_str().is_some_and(|m| !m.is_empty() && !m.contains('\r')), "{line}");
                }
                let denial = said.iter().filter(|l| l["message"].as_str().is_some_and(|m| m.contains("no_policy")));
                assert_eq!(denial.count() > 0, level != "error", "{mode:?} {level} {run:?}");
            }
        }
    });
}

#[test]
fn failures_are_objects_too() {
    let mode = *Mode::available().first().unwrap();
    let json = || Stockade::new(mode).arg("--log-format").arg("json");
    let wrong_option = json().arg("--no-such-option").sh("true");
    let wrong_policy = json().policy("version: 1\nnonsense: 1\n").sh("true");
    let no_command = json().run(&["no-such-command"]);
    for (run, code, said) in
        [(wrong_option, 125, "--no-such-option"), (wrong_policy, 125, "nonsense"), (no_command, 127, "not found")]
    {
        run.assert_code(code);
        let last = lines(&run.stderr).pop().expect("a line");
        assert_eq!(last["level"], "error", "{run:?}");
        assert!(last["message"].as_str().unwrap().contains(said), "{run:?}");
    }
    let text = Stockade::new(mode).run(&["no-such-command"]);
    assert!(text.stderr.starts_with("stockade: "), "control: text is the default {text:?}");
}
