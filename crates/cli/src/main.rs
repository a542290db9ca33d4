//! The stockade program: one subcommand per file.
#![forbid(unsafe_code)]

mod args;
mod audit;
mod demo;
mod doctor;
mod health;
mod policy;
mod run;
mod ssh;
mod supervise;

use std::{ffi::OsString, process::ExitCode};

use clap::{
    CommandFactory, Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};

use self::{
    args::{Cli, Command},
    supervise::{Asked, Settings},
};

/// Exit code when it is Stockade that failed: nothing was run, or it was ended.
const EXIT_OURS: u8 = 125;

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    let asked = if supervise::is_asked(&argv) {
        supervise::parse(&argv, std::env::vars_os())
    } else {
        // Asked for by a variable, which an image may set too: an entrypoint does not heed it.
        clap_complete::CompleteEnv::with_factory(Cli::command).complete();
        Cli::try_parse_from(&argv).map_or_else(Asked::Grammar, |cli| Asked::Cli(Box::new(cli), Settings::default()))
    };
    let (cli, settings) = match asked {
        Asked::Cli(cli, settings) => (cli, settings),
        Asked::Grammar(e) => return ExitCode::from(not_understood(&e)),
        Asked::Refused(e) => return ExitCode::from(failed(&e)),
    };
    let done = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Supervise(args) => supervise::run(args, settings),
        Command::Learn(args) => run::learn(args),
        Command::Policy(command) => policy::run(command),
        Command::Doctor(args) => doctor::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Audit(command) => audit::run(command),
        Command::SshConfig(args) => ssh::config(&args),
        Command::SshConnect(args) => ssh::connect(&args),
        Command::SftpServer => ssh::sftp_server(),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(e) => ExitCode::from(failed(&e)),
    }
}

/// What clap refuses, and what it is asked to show: `--help` and `--version` are errors to it too.
fn not_understood(e: &clap::Error) -> u8 {
    if let Some(later) = supervise::later(e) {
        return failed(&Failure::new(later));
    }
    let hint = bare_command(e);
    if e.use_stderr() && asks_for_json(std::env::args_os()) {
        stockade_supervisor::log_format(stockade_supervisor::LogFormat::Json);
        stockade_supervisor::say_failure(format_args!("{}{}", e.render(), hint.unwrap_or_default()));
        return EXIT_OURS;
    }
    // Nobody to tell when the terminal is gone.
    let _ = e.print();
    if let Some(hint) = hint {
        eprintln!("{hint}");
    }
    // A wrong option means nothing was run.
    if e.use_stderr() { EXIT_OURS } else { 0 }
}

/// A word where an option was expected is most often the command.
fn bare_command(e: &clap::Error) -> Option<&'static str> {
    let runs = std::env::args_os().nth(1).is_some_and(|sub| sub == "run" || sub == "supervise" || sub == "learn");
    let word = matches!(e.get(ContextKind::InvalidArg), Some(ContextValue::String(arg)) if !arg.starts_with('-'));
    (runs && word && e.kind() == ErrorKind::UnknownArgument)
        .then_some("put `--` before the command: stockade run [options] -- CMD ARGUMENTS")
}

fn failed(e: &Failure) -> u8 {
    // It may quote names and lines of files that somebody else chose.
    let text = e.to_string();
    stockade_supervisor::say_failure(format_args!("stockade: {}", stockade_types::EscapedLines(&text)));
    e.code()
}

/// Whether the options ask for JSON, where they could not be read as a whole.
fn asks_for_json(args: impl Iterator<Item = OsString>) -> bool {
    let own: Vec<_> = args.take_while(|a| a != "--").collect();
    own.iter().any(|a| a == "--log-format=json")
        || own.windows(2).any(|pair| matches!(pair, [option, value] if option == "--log-format" && value == "json"))
}

/// A failure as a person reads it: what failed, why, and the next step, with the exit code it means.
#[derive(Debug)]
struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    fn new(text: impl std::fmt::Display) -> Self {
        Self { text: text.to_string(), code: EXIT_OURS }
    }

    fn code(&self) -> u8 {
        self.code
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<stockade_supervisor::Error> for Failure {
    fn from(e: stockade_supervisor::Error) -> Self {
        Self { code: e.exit_code(), text: e.to_string() }
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Self::new(e)
    }
}
