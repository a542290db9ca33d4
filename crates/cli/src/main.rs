//! The stockade program: one subcommand per file.
#![forbid(unsafe_code)]

mod args;
mod audit;
mod demo;
mod doctor;
mod policy;
mod run;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use self::args::{Cli, Command};

/// Exit code when it is Stockade that failed: nothing was run, or it was ended.
const EXIT_OURS: u8 = 125;

fn main() -> ExitCode {
    clap_complete::CompleteEnv::with_factory(Cli::command).complete();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // `--help` and `--version` are errors to clap; a wrong option means nothing was run.
            let code = if e.use_stderr() { EXIT_OURS } else { 0 };
            // Nobody to tell when the terminal is gone.
            let _ = e.print();
            return ExitCode::from(code);
        }
    };
    let done = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Learn(args) => run::learn(args),
        Command::Policy(command) => policy::run(command),
        Command::Doctor(args) => doctor::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Audit(command) => audit::run(command),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            // It may quote names and lines of files that somebody else chose.
            let text = e.to_string();
            stockade_supervisor::say(format_args!("stockade: {}", stockade_types::EscapedLines(&text)));
            ExitCode::from(e.code())
        }
    }
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
