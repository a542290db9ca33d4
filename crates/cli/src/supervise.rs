//! `supervise`: `run` as the entrypoint of a container. Every option may also come from the environment, as far as
//! `table` lets it.

mod mounted;
mod settings;
mod table;

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

use clap::{CommandFactory, Parser};
use stockade_supervisor::Duty;

pub(crate) use self::settings::Settings;
use self::table::LATER;
use crate::{
    Failure,
    args::{Cli, RunArgs},
    run,
};

/// Name of the subcommand.
const NAME: &str = "supervise";
/// What the settings in the environment begin with.
const PREFIX: &str = "STOCKADE_";

/// Whether the command line asks for it.
pub(crate) fn is_asked(argv: &[OsString]) -> bool {
    argv.get(1).is_some_and(|word| word == NAME)
}

/// The command line with the options that the environment adds.
pub(crate) enum Asked {
    /// Understood.
    Cli(Box<Cli>, Settings),
    /// Not, by the command line's own grammar; also `--help`.
    Grammar(clap::Error),
    /// A setting was refused.
    Refused(Failure),
}

/// Reads the command line and then the environment.
pub(crate) fn parse(argv: &[OsString], environment: impl Iterator<Item = (OsString, OsString)>) -> Asked {
    let given = match Cli::command().try_get_matches_from(argv) {
        Ok(given) => given,
        Err(e) => return Asked::Grammar(e),
    };
    let Some(given) = given.subcommand_matches(NAME) else {
        return Asked::Refused(Failure::new("`supervise` is the first word of its command line"));
    };
    let named = |option: &str| given.value_source(option) == Some(clap::parser::ValueSource::CommandLine);
    let settings = match settings::read(environment, named, mounted::check) {
        Ok(settings) => settings,
        Err(e) => return Asked::Refused(Failure::new(e)),
    };
    let words = argv.iter().take(2).chain(&settings.options).chain(argv.iter().skip(2));
    match Cli::try_parse_from(words) {
        Ok(cli) => Asked::Cli(Box::new(cli), settings),
        // The command line alone was understood, so it is a value of the environment that was not.
        Err(e) => Asked::Refused(Failure::new(format_args!(
            "a setting in the environment ({}) is not understood: {}",
            settings.names.join(", "),
            plain(&e)
        ))),
    }
}

/// The first line of what clap says, which names option and value.
fn plain(e: &clap::Error) -> String {
    let text = e.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// `stockade supervise`.
pub(crate) fn run(args: RunArgs, settings: Settings) -> Result<u8, Failure> {
    if let Some(name) = args.sandbox.env.iter().find(|text| text.as_bytes().starts_with(PREFIX.as_bytes())) {
        return Err(Failure::new(format_args!(
            "--env {}: variables that begin with {PREFIX} are settings of Stockade, and the command never gets them",
            name.to_string_lossy()
        )));
    }
    let Settings { names, notices, ceilings, .. } = settings;
    let duty = Duty { entrypoint: true, environment: names, notices, ceilings };
    run::supervised(args, duty)
}

/// Names of variables as options: `STOCKADE_AUDIT_LOG` is `audit-log`.
fn option_of(variable: &OsStr) -> Option<String> {
    let rest = variable.to_str()?.strip_prefix(PREFIX)?;
    Some(rest.to_ascii_lowercase().replace('_', "-"))
}

/// `audit-log` is `STOCKADE_AUDIT_LOG`.
fn variable_of(option: &str) -> String {
    format!("{PREFIX}{}", option.to_ascii_uppercase().replace('-', "_"))
}

/// An option that will come, where it is what clap does not know.
pub(crate) fn later(e: &clap::Error) -> Option<String> {
    let name = match e.get(clap::error::ContextKind::InvalidArg) {
        Some(clap::error::ContextValue::String(name)) => name.trim_start_matches('-'),
        _ => return None,
    };
    let (option, what) = LATER.iter().find(|(option, _)| *option == name)?;
    Some(format!("--{option} is not available yet ({what}); docs/status.md says what is"))
}

#[cfg(test)]
mod tests;
