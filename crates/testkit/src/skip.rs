//! Skips are counted: a test that cannot run here says so where `make test` finds it.

use std::{env, fmt, fs::OpenOptions, io::Write};

/// Records that the running test is skipped because of `reason`, and returns from it.
///
/// Only for what the machine lacks. `skip!("no docker daemon")`; with arguments as in `format!`.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        $crate::skip::record(::std::format_args!($($reason)*));
        return;
    }};
}

/// Skips the running test unless the machine has the [`crate::Feature`].
#[macro_export]
macro_rules! need {
    ($feature:expr) => {{
        let found = $crate::machine::probe($feature);
        if !found.present {
            $crate::skip!("this machine has no {}: {}", $feature, found.detail);
        }
    }};
}

/// Prints `SKIP <test>: <reason>` and appends it to the file that `STOCKADE_SKIPS` names.
pub fn record(reason: fmt::Arguments<'_>) {
    let line = format!("SKIP {}: {reason}\n", test_name());
    print!("{line}");
    if let Some(path) = env::var_os("STOCKADE_SKIPS") {
        // One write in append mode: lines of parallel tests do not mix.
        let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// The name of the running test, with its crate where the runner tells it.
fn test_name() -> String {
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    match env::var("CARGO_PKG_NAME") {
        Ok(package) => format!("{package}::{thread}"),
        Err(_) => thread,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    /// Runs only when the other test starts it; an ordinary run of the suite passes over it.
    #[test]
    fn skipping() {
        if std::env::var_os("STOCKADE_TEST_SKIP").is_none() {
            return;
        }
        crate::skip!("no {}", "time");
    }

    #[test]
    fn a_skip_is_printed_and_recorded() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let out = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "skip::tests::skipping", "--nocapture"])
            .env("STOCKADE_TEST_SKIP", "1")
            .env("STOCKADE_SKIPS", file.path())
            .output()
            .unwrap();
        let recorded = std::fs::read_to_string(file.path()).unwrap();
        assert!(recorded.starts_with("SKIP ") && recorded.ends_with("skip::tests::skipping: no time\n"), "{recorded}");
        assert!(String::from_utf8(out.stdout).unwrap().contains(&recorded), "printed as well");
    }
}
