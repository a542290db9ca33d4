//! From variables to options.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use stockade_supervisor::Limits;

use super::{
    option_of,
    table::{LATER, Row, Rule, TABLE},
    variable_of,
};

/// What the environment has set.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// Options, as words of a command line.
    pub(crate) options: Vec<OsString>,
    /// Variables that count.
    pub(crate) names: Vec<String>,
    /// What there is to say about the others.
    pub(crate) notices: Vec<String>,
    /// Limits that the environment lowers.
    pub(crate) ceilings: Limits,
}

/// Why a setting was refused. Nothing was run.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SettingError {
    /// Only the command line may say it.
    #[error(
        "{variable}: the environment may not set --{option}: {why}. The image's author writes the environment too; give --{option} on the command line"
    )]
    Never { variable: String, option: &'static str, why: &'static str },
    /// This value of it.
    #[error("{variable}: {why}")]
    Value { variable: String, why: String },
    /// The program does not have it yet.
    #[error("{variable}: not available yet ({what}); take it out of the environment")]
    Later { variable: String, what: &'static str },
}

/// Turns the variables that begin with `STOCKADE_` into options. `given`: whether the command line has an option
/// already; it wins, except where values add up. `mounted` checks a file that the environment names.
pub(super) fn read(
    environment: impl Iterator<Item = (OsString, OsString)>,
    given: impl Fn(&str) -> bool,
    mounted: impl Fn(&Path) -> Result<(), String>,
) -> Result<Settings, SettingError> {
    let mut found: Vec<(String, OsString, OsString)> =
        environment.filter_map(|(name, value)| Some((option_of(&name)?, name, value))).collect();
    // The order of an environment says nothing; the same settings are always the same words.
    found.sort();
    let mut settings = Settings::default();
    for (option, name, value) in found {
        let variable = name.to_string_lossy().into_owned();
        if value.is_empty() {
            settings.notices.push(format!("{variable} is empty and counts as not set"));
            continue;
        }
        if let Some((_, what)) = LATER.iter().find(|(later, _)| *later == option) {
            return Err(SettingError::Later { variable, what });
        }
        match TABLE.iter().find(|row| row.option == option) {
            Some(row) => settings.take(row, variable, &value, (&given, &mounted))?,
            None => settings.notices.push(unknown(&variable)),
        }
    }
    Ok(settings)
}

type Outside<'a> = (&'a dyn Fn(&str) -> bool, &'a dyn Fn(&Path) -> Result<(), String>);

impl Settings {
    fn take(&mut self, row: &Row, variable: String, value: &OsStr, outside: Outside<'_>) -> Result<(), SettingError> {
        let (given, mounted) = outside;
        let option = row.option;
        let refused = |why: String| SettingError::Value { variable: variable.clone(), why };
        match row.rule {
            Rule::Never(why) => return Err(SettingError::Never { variable, option, why }),
            Rule::Lower => self.lower(option, value).map_err(refused)?,
            Rule::Mounted => {
                for file in lines(value) {
                    mounted(Path::new(&file)).map_err(refused)?;
                    self.options.push(word(option, &file));
                }
            }
            // Values of these add up.
            Rule::Checked(check) if option == "env" => {
                for line in lines(value) {
                    check(&line).map_err(|why| refused(why.to_owned()))?;
                    self.options.push(word(option, &line));
                }
            }
            Rule::Set if option == "require" => self.options.push(word(option, value)),
            Rule::Set | Rule::Checked(_) if given(&option.replace('-', "_")) => {
                self.notices.push(format!("{variable} does not count: the command line has --{option}"));
                return Ok(());
            }
            Rule::Set if option == "terminal" => match value.to_str() {
                Some("1" | "true") => self.options.push("--terminal".into()),
                _ => return Err(refused("expected 1 or true".to_owned())),
            },
            Rule::Checked(check) => {
                check(value).map_err(|why| refused(why.to_owned()))?;
                self.options.push(word(option, value));
            }
            Rule::Set => self.options.push(word(option, value)),
        }
        self.names.push(variable);
        Ok(())
    }

    fn lower(&mut self, option: &str, value: &OsStr) -> Result<(), String> {
        let text = value.to_str().ok_or("not a number")?;
        match option {
            "memory" => self.ceilings.memory = Some(text.to_owned()),
            "cpus" => self.ceilings.cpus = Some(text.parse().map_err(|_| "expected a number such as 1.5")?),
            _ => self.ceilings.pids = Some(text.parse().map_err(|_| "expected a whole number")?),
        }
        Ok(())
    }
}

/// `--option=value`: a value that begins with a dash stays one.
fn word(option: &str, value: &OsStr) -> OsString {
    [OsStr::new("--"), OsStr::new(option), OsStr::new("="), value].into_iter().collect()
}

/// One value a line; blank lines are none.
fn lines(value: &OsStr) -> Vec<OsString> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let lines = value.as_bytes().split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty()).map(|line| OsString::from_vec(line.to_vec())).collect()
}

fn unknown(variable: &str) -> String {
    let near = TABLE.iter().map(|row| variable_of(row.option)).find(|known| close(known, variable));
    let hint = near.map(|known| format!("; did you mean {known}?")).unwrap_or_default();
    format!("{variable} is no setting of `supervise` and does not count{hint}")
}

/// Whether two names differ by one letter, added, missing, changed or swapped with the next.
fn close(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let same = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (a, b) = (a.get(same..).unwrap_or_default(), b.get(same..).unwrap_or_default());
    let after = |s: &[u8], n: usize| s.get(n..).map(<[u8]>::to_vec);
    let equal = |x: Option<Vec<u8>>, y: Option<Vec<u8>>| x.is_some() && x == y;
    equal(after(a, 1), after(b, 0))
        || equal(after(a, 0), after(b, 1))
        || equal(after(a, 1), after(b, 1))
        || (a.first() == b.get(1) && a.get(1) == b.first() && equal(after(a, 2), after(b, 2)))
}
