//! What each option may be from the environment.
//!
//! The environment of a container is written by its operator and by whoever made the image, and nothing tells which
//! variable is whose. So it may add walls, never take one away: what could weaken counts only on the command line, or in
//! a file that the image cannot have brought along.

use std::ffi::OsStr;

/// What the environment may do with an option.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// Set it; whatever the value, the sandbox is no weaker for it.
    Set,
    /// Set it where the check agrees.
    Checked(fn(&OsStr) -> Result<(), &'static str>),
    /// Lower what the command line and the policy say.
    Lower,
    /// Name files, where each is one that the operator mounted.
    Mounted,
    /// Nothing; why not.
    Never(&'static str),
}

/// One option of `supervise`.
pub(super) struct Row {
    /// Its long name.
    pub(super) option: &'static str,
    pub(super) rule: Rule,
}

const fn row(option: &'static str, rule: Rule) -> Row {
    Row { option, rule }
}

/// Every option; a test compares this with the command line's definition.
pub(super) const TABLE: &[Row] = &[
    row("allow", Rule::Never("it lets the command reach a host")),
    row("policy", Rule::Mounted),
    row("workspace", Rule::Never("it grants a directory, and paths of the policy are relative to it")),
    row("env", Rule::Checked(sets_a_value)),
    row("user", Rule::Never("it decides whose files the command may use")),
    row("memory", Rule::Lower),
    row("cpus", Rule::Lower),
    row("pids", Rule::Lower),
    row("upstream-ca", Rule::Mounted),
    row("timeout", Rule::Set),
    row("grace", Rule::Set),
    row("audit-log", Rule::Set),
    row("require", Rule::Set),
    row("interactive", Rule::Set),
    row("terminal", Rule::Set),
    row("ssh", Rule::Never("it lets people in")),
    row("ssh-authorized-keys", Rule::Never("it says who may come in")),
    row("ssh-host-key", Rule::Never("it is the server's secret")),
    row("ssh-token-secret", Rule::Never("it says who may come in")),
    row("ssh-token-key", Rule::Never("it says who may come in")),
    row("log-level", Rule::Checked(says_enough)),
    row("log-format", Rule::Set),
    // What they show is counts and the state of layers.
    row("health", Rule::Set),
    row("metrics", Rule::Set),
    row("publish", Rule::Never("it lets whoever reaches the port speak to what runs inside")),
    row("traces", Rule::Never("names that the command asks for would go to where the environment says")),
];

/// Options that will come. Until then they are refused, not ignored, wherever they are given.
pub(crate) const LATER: &[(&str, &str)] = &[
    ("gateway", "S4: the gateway"),
    ("sandbox-id", "S4: the gateway"),
    ("inference-routes", "S5: inference routes"),
    ("isolation", "W10: weaker modes by name"),
    ("preset", "P3: presets"),
    ("secret", "P3: secrets by name; a policy's `credentials` does it today"),
    ("skills", "C2: the skill scanner"),
];

/// `NAME` alone would pass on a variable of the operator's, such as a token; `NAME=VALUE` holds nothing but itself.
fn sets_a_value(value: &OsStr) -> Result<(), &'static str> {
    let bytes = value.as_encoded_bytes();
    if bytes.starts_with(super::PREFIX.as_bytes()) {
        return Err("variables that begin with STOCKADE_ are never the command's");
    }
    if bytes.contains(&b'=') {
        Ok(())
    } else {
        Err(
            "a variable can be passed on by the command line only, `--env NAME`; the environment may set one, NAME=VALUE",
        )
    }
}

/// `error` would hide what the sandbox has to say of itself.
fn says_enough(value: &OsStr) -> Result<(), &'static str> {
    if value == "error" { Err("only the command line can silence notices, `--log-level error`") } else { Ok(()) }
}
