use std::{collections::BTreeSet, path::Path};

use clap::CommandFactory;

use super::{
    settings::{SettingError, read},
    table::{Rule, TABLE},
    *,
};

fn settings(variables: &[(&str, &str)], given: &[&str]) -> Result<Settings, SettingError> {
    let environment = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    let mounted = |path: &Path| if path.starts_with("/mounted") { Ok(()) } else { Err("in the image".to_owned()) };
    read(environment, |option| given.contains(&option), mounted)
}

fn words(settings: &Settings) -> Vec<&str> {
    settings.options.iter().filter_map(|word| word.to_str()).collect()
}

#[test]
fn every_option_has_a_row_and_every_row_an_option() {
    let cli = Cli::command();
    let options: BTreeSet<&str> = cli
        .find_subcommand(NAME)
        .unwrap()
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .filter(|l| *l != "help")
        .collect();
    let rows: BTreeSet<&str> = TABLE.iter().map(|row| row.option).collect();
    assert_eq!(rows, options, "crates/cli/src/supervise/table.rs against the options of `supervise`");
    assert_eq!(rows.len(), TABLE.len(), "an option has one row");
    assert!(LATER.iter().all(|(later, _)| !options.contains(later)), "an option that is there is not to come");
}

/// What takes a wall down, or opens a door: no value of the environment may say it.
#[test]
fn what_weakens_is_for_the_command_line() {
    for option in ["allow", "workspace", "user"] {
        let variable = variable_of(option);
        let refused = settings(&[(&variable, "x")], &[]).unwrap_err();
        assert!(matches!(refused, SettingError::Never { .. }), "{refused}");
        assert!(refused.to_string().contains(&format!("--{option}")), "{refused}");
        // Also where the command line has it: a variable that is refused is never merely ignored.
        assert!(settings(&[(&variable, "x")], &[option]).is_err());
    }
    let never = TABLE.iter().filter(|row| matches!(row.rule, Rule::Never(_)));
    assert!(never.clone().count() >= 3);
    for row in never {
        assert!(settings(&[(&variable_of(row.option), "1")], &[]).is_err(), "{}", row.option);
    }
}

#[test]
fn files_count_only_where_the_operator_mounted_them() {
    let both = settings(&[("STOCKADE_POLICY", "/mounted/a.yaml\n/mounted/b.yaml\n")], &["policy"]).unwrap();
    assert_eq!(words(&both), ["--policy=/mounted/a.yaml", "--policy=/mounted/b.yaml"], "they add up");
    for bad in ["/image/a.yaml", "/mounted/a.yaml\n/image/b.yaml"] {
        let refused = settings(&[("STOCKADE_POLICY", bad)], &[]).unwrap_err();
        assert!(refused.to_string().starts_with("STOCKADE_POLICY: in the image"), "{refused}");
    }
    assert!(settings(&[("STOCKADE_UPSTREAM_CA", "/image/ca.pem")], &[]).is_err());
}

#[test]
fn what_adds_a_wall_is_taken() {
    let taken = settings(
        &[
            ("STOCKADE_TIMEOUT", "90s"),
            ("STOCKADE_REQUIRE", "limits,identity"),
            ("STOCKADE_MEMORY", "1GiB"),
            ("HOME", "/x"),
        ],
        &["require"],
    )
    .unwrap();
    assert_eq!(words(&taken), ["--require=limits,identity", "--timeout=90s"], "requirements add up");
    assert_eq!(taken.names, ["STOCKADE_MEMORY", "STOCKADE_REQUIRE", "STOCKADE_TIMEOUT"]);
    assert_eq!(taken.ceilings.memory.as_deref(), Some("1GiB"), "a limit can only be lowered");
}

#[test]
fn the_command_line_wins_and_that_is_said() {
    let told = settings(&[("STOCKADE_TIMEOUT", "90s"), ("STOCKADE_GRACE", "")], &["timeout"]).unwrap();
    assert!(words(&told).is_empty() && told.names.is_empty());
    assert_eq!(told.notices.len(), 2, "{:?}", told.notices);
}

#[test]
fn variables_of_the_command_hold_their_value() {
    let set = settings(&[("STOCKADE_ENV", "A=1\nB=x y\n")], &[]).unwrap();
    assert_eq!(words(&set), ["--env=A=1", "--env=B=x y"]);
    assert!(settings(&[("STOCKADE_ENV", "GITHUB_TOKEN")], &[]).is_err(), "a token of the operator's");
    assert!(settings(&[("STOCKADE_ENV", "STOCKADE_X=1")], &[]).is_err());
}

#[test]
fn notices_cannot_be_silenced() {
    assert!(settings(&[("STOCKADE_LOG_LEVEL", "error")], &[]).is_err());
    assert_eq!(words(&settings(&[("STOCKADE_LOG_LEVEL", "debug")], &[]).unwrap()), ["--log-level=debug"]);
}

#[test]
fn unknown_variables_are_named() {
    let told = settings(&[("STOCKADE_TIMEOTU", "1"), ("STOCKADE_SERVICE_HOST", "10.0.0.1")], &[]).unwrap();
    assert!(told.notices[1].contains("did you mean STOCKADE_TIMEOUT?"), "{:?}", told.notices);
    assert!(told.notices[0].ends_with("does not count"), "{:?}", told.notices);
    assert!(matches!(settings(&[("STOCKADE_GATEWAY", "x")], &[]), Err(SettingError::Later { .. })));
}

#[test]
fn the_words_of_the_environment_come_before_the_command() {
    let argv = ["stockade", "supervise", "--pids", "9", "--", "x", "--timeout", "1"].map(OsString::from);
    let environment = [("STOCKADE_TIMEOUT".into(), "2h".into())];
    let Asked::Cli(cli, settings) = parse(&argv, environment.into_iter()) else { panic!("refused") };
    let crate::args::Command::Supervise(args) = cli.command else { panic!("another command") };
    assert_eq!(args.sandbox.timeout, Some(std::time::Duration::from_secs(7200)));
    assert_eq!(args.sandbox.command, ["x", "--timeout", "1"]);
    assert_eq!(settings.names, ["STOCKADE_TIMEOUT"]);
    let bad = [("STOCKADE_TIMEOUT".into(), "soon".into())];
    let Asked::Refused(why) = parse(&argv, bad.into_iter()) else { panic!("taken") };
    assert!(why.to_string().contains("STOCKADE_TIMEOUT"), "{why}");
}

#[test]
fn a_file_of_this_machine_is_not_mounted_for_us() {
    for path in
        ["/etc/passwd", "/proc/self/environ", "/sys/kernel/mm/transparent_hugepage/enabled", "relative", "/absent"]
    {
        assert!(mounted::check(Path::new(path)).is_err(), "{path}");
    }
}
