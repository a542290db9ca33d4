//! The command line. docs/cli.md is compared with this by `cargo xtask tidy`.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use stockade_policy::publish::Publish;
use stockade_supervisor::ssh::Listen;
use stockade_types::Layer;

/// Runs an untrusted command behind a wall with one door
#[derive(Debug, Parser)]
#[command(name = "stockade", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Wrap a command: stdio, terminal, signals and exit code as if unwrapped
    Run(RunArgs),
    /// The same as the entrypoint of a container, as PID 1; options also from STOCKADE_* variables
    Supervise(RunArgs),
    /// Run with network decisions recorded instead of denied, then write the least policy that allows what was seen
    Learn(LearnArgs),
    /// Validate, explain and test policies
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Which layers this machine can enforce, what is missing, how to get it
    Doctor(DoctorArgs),
    /// Everything at once in ten seconds, offline
    Demo(DemoArgs),
    /// Ask a running sandbox whether it is ready: the HEALTHCHECK of an image without curl
    Health(HealthArgs),
    /// Read, verify and convert the audit log
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Lines for ~/.ssh/config that lead into a sandbox
    SshConfig(SshConfigArgs),
    /// Carry an SSH connection to a unix socket: what those lines call
    #[command(hide = true)]
    SshConnect(SshConnectArgs),
    /// Serve files over SFTP on standard input and output: what a session inside runs
    #[command(hide = true)]
    SftpServer,
}

/// `ssh-config`.
#[derive(Debug, Args)]
pub(crate) struct SshConfigArgs {
    /// Where the sandbox listens, as given to --ssh
    #[arg(value_name = "ADDR:PORT|unix:PATH")]
    pub(crate) ssh: Listen,
    /// The name that ssh is to know the sandbox by
    #[arg(long, value_name = "NAME", default_value = "stockade")]
    pub(crate) name: String,
    /// The server's key: the file given to --ssh-host-key, or its public part
    #[arg(long, value_name = "FILE")]
    pub(crate) host_key: PathBuf,
    /// The private key to come in with
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
}

/// `ssh-connect`.
#[derive(Debug, Args)]
pub(crate) struct SshConnectArgs {
    /// The socket
    pub(crate) path: PathBuf,
}

/// What `run` and `learn` share.
#[derive(Debug, Args)]
pub(crate) struct SandboxArgs {
    /// Policy file; several are merged. Without one the built-in policy applies: this directory, no network
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Vec<PathBuf>,
    /// Directory the command works in, with its access
    #[arg(long, value_name = "DIR[:ro|rw|none]")]
    pub(crate) workspace: Option<OsString>,
    /// Set a variable, or pass one on from this environment
    #[arg(long, value_name = "K=V|K")]
    pub(crate) env: Vec<OsString>,
    /// Who the command runs as: a name or UID:GID (as root; never 0)
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Memory limit, such as 4GiB
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// CPU limit in cores, such as 1.5
    #[arg(long, value_name = "N", value_parser = cores)]
    pub(crate) cpus: Option<f64>,
    /// Limit of processes and threads
    #[arg(long, value_name = "N")]
    pub(crate) pids: Option<u64>,
    /// Authorities (PEM) that may sign for hosts, besides this machine's; several are added up
    #[arg(long, value_name = "FILE")]
    pub(crate) upstream_ca: Vec<PathBuf>,
    /// How long the command may take to end after TERM, before KILL: 10s, as an entrypoint 8s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) grace: Option<Duration>,
    /// End the command after this time (exit code 124), such as 90s or 10m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Append the audit log to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_log: Option<PathBuf>,
    /// Layers that must be fully enforced, besides the policy's
    #[arg(long, value_name = "LAYER", value_delimiter = ',')]
    pub(crate) require: Vec<Layer>,
    /// Taken for habit's sake: standard input always reaches the command
    #[arg(short = 'i', long)]
    #[expect(dead_code, reason = "it changes nothing")]
    pub(crate) interactive: bool,
    /// Give the command a terminal even when this is not run in one
    #[arg(short = 't', long)]
    pub(crate) terminal: bool,
    /// How much Stockade itself says on stderr
    #[arg(long, value_name = "LEVEL", default_value = "notice")]
    pub(crate) log_level: LogLevel,
    /// Listen outside and lead to a server inside; 127.0.0.1 unless an address is named
    #[arg(long, value_name = "[ADDR:]PORT[:PORT]")]
    pub(crate) publish: Vec<Publish>,
    /// Send traces where the OTEL_ variables say: `run` and `learn` do that anyway
    #[arg(long)]
    pub(crate) traces: bool,
    /// How Stockade writes what it says on stderr
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Answer /livez and /readyz here, outside the sandbox: a port of 127.0.0.1, or ADDR:PORT
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = listen_address)]
    pub(crate) health: Option<SocketAddr>,
    /// Answer /metrics (Prometheus) here, outside the sandbox; may be the address of --health
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = listen_address)]
    pub(crate) metrics: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) ssh: SshArgs,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// Who may come in while the command runs.
#[derive(Debug, Args)]
pub(crate) struct SshArgs {
    /// Serve SSH into the sandbox here
    #[arg(long, value_name = "ADDR:PORT|unix:PATH")]
    pub(crate) ssh: Option<Listen>,
    /// Keys and certificate authorities that may come in, in OpenSSH's format
    #[arg(long, value_name = "FILE", requires = "ssh")]
    pub(crate) ssh_authorized_keys: Option<PathBuf>,
    /// The server's private key; one for this run when absent
    #[arg(long, value_name = "FILE", requires = "ssh")]
    pub(crate) ssh_host_key: Option<PathBuf>,
    /// Take connections of a gateway only, which shares this secret
    #[arg(long, value_name = "FILE", requires = "ssh", conflicts_with_all = ["ssh_token_key", "ssh_authorized_keys"])]
    pub(crate) ssh_token_secret: Option<PathBuf>,
    /// Take connections of a gateway only, which signs with the private part of this Ed25519 key
    #[arg(long, value_name = "FILE", requires = "ssh", conflicts_with = "ssh_authorized_keys")]
    pub(crate) ssh_token_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Allow a host (ports 80 and 443 unless one is named): a policy in a word
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) allow: Vec<String>,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LearnArgs {
    /// Where to write the policy
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Decrypt TLS, so that methods and paths are learned too; programs that pin certificates fail
    #[arg(long)]
    pub(crate) inspect: bool,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
}

/// How much Stockade itself says on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum LogLevel {
    /// Only why nothing was run.
    Error,
    /// Also what an operator should know, and what was blocked, at the end.
    Notice,
    /// Also each denial as it happens.
    Info,
    /// Also each connection, and the state of every layer.
    Debug,
}

/// How Stockade writes what it says on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line: time, level, message.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Validate policy files
    Check {
        /// Policy files; several are merged
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Machine-readable output
        #[arg(long)]
        json: bool,
    },
    /// Say which rule decides a connection or a request, and why
    Explain(ExplainArgs),
    /// Say what a change newly allows, and what it no longer does: by rule, each with an example
    Diff {
        /// Policy as it is
        before: PathBuf,
        /// Policy as it would be
        after: PathBuf,
        /// Machine-readable output
        #[arg(long)]
        json: bool,
    },
    /// Run YAML test cases
    Test {
        /// Policy under test; needed unless every case has one of its own
        #[arg(long, value_name = "FILE")]
        policy: Vec<PathBuf>,
        /// Files with cases
        #[arg(required = true)]
        cases: Vec<PathBuf>,
        /// Machine-readable output
        #[arg(long)]
        json: bool,
    },
}

/// `policy explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Policy file; several are merged
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) policy: Vec<PathBuf>,
    /// Destination: HOST:PORT, or a URL; one with a path is a request
    pub(crate) target: String,
    /// Method of the request; GET, or POST where there is a body
    #[arg(short = 'X', long, value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// Header field of the request
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    pub(crate) header: Vec<String>,
    /// File with the body of the request, for endpoints whose protocol is read
    #[arg(long, value_name = "FILE")]
    pub(crate) body: Option<PathBuf>,
    /// Program that asks, as the sandbox sees it: for endpoints with `binaries`
    #[arg(long, value_name = "PATH", value_parser = inside)]
    pub(crate) program: Option<PathBuf>,
    /// SHA-256 of the program, for a policy that pins it
    #[arg(long, value_name = "HEX", requires = "program", value_parser = stockade_policy::sha256)]
    pub(crate) sha256: Option<[u8; 32]>,
    /// Script that the program was started with
    #[arg(long, value_name = "PATH", requires = "program", value_parser = inside)]
    pub(crate) script: Option<PathBuf>,
    /// Program of a process above it, the parent first; without any it is the command itself
    #[arg(long, value_name = "PATH", requires = "program", value_parser = inside)]
    pub(crate) ancestor: Vec<PathBuf>,
    /// Machine-readable output
    #[arg(long)]
    pub(crate) json: bool,
}

/// A path inside the sandbox.
fn inside(text: &str) -> Result<PathBuf, String> {
    match PathBuf::from(text) {
        path if path.is_absolute() => Ok(path),
        _ => Err("not an absolute path; say where it is inside the sandbox".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Machine-readable output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// One of the demo's other processes
    #[arg(hide = true)]
    pub(crate) part: Option<DemoPart>,
}

#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// What --health named; STOCKADE_HEALTH when absent
    #[arg(env = "STOCKADE_HEALTH", value_name = "[ADDR:]PORT", value_parser = listen_address)]
    pub(crate) address: SocketAddr,
    /// Only whether it answers, ready or not
    #[arg(long)]
    pub(crate) live: bool,
    /// How long to wait for the answer
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "3s")]
    pub(crate) timeout: Duration,
}

/// Processes that the demo starts.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum DemoPart {
    /// The sandboxed one.
    Inside,
    /// The server outside.
    Upstream,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Show events as lines
    Tail {
        /// The log
        file: PathBuf,
        /// Keep waiting for more
        #[arg(short, long)]
        follow: bool,
        /// Only the last N lines
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: usize,
    },
    /// Check the hash chain
    Verify {
        /// The log; the files it was rotated into are found beside it
        file: PathBuf,
        /// The hash that some line must have, as a run said it at its end: detects a cut-off end
        #[arg(long, value_name = "HASH", value_parser = hash)]
        expect_head: Option<String>,
        /// Machine-readable output
        #[arg(long)]
        json: bool,
    },
    /// Convert
    Export {
        /// The log
        file: PathBuf,
        /// To what
        #[arg(long, default_value = "ocsf")]
        format: ExportFormat,
    },
}

/// What `audit export` writes.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ExportFormat {
    /// OCSF JSON lines, as logged
    Ocsf,
    /// Comma-separated values
    Csv,
    /// Lines for people
    Text,
}

/// `8080`, `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix("localhost:").unwrap_or(text);
    let addr = match port.parse::<u16>() {
        // Nobody else is meant to ask, unless a person says so.
        Ok(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        Err(_) => text.parse().map_err(|_| "expected a port, or ADDRESS:PORT such as 0.0.0.0:8080".to_owned())?,
    };
    if addr.port() == 0 { Err("port 0 is none".to_owned()) } else { Ok(addr) }
}

/// SHA-256 as the log writes it.
fn hash(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    match lower.len() == 64 && lower.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => Ok(lower),
        false => Err("expected the 64 hexadecimal digits of a head".to_owned()),
    }
}

/// `1.5`.
fn cores(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "expected a number of cores such as 2 or 1.5".to_owned())
}

/// `90`, `90s`, `10m`, `2h`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "expected a time such as 90s, 10m or 2h".to_owned())?;
    let time = match text.get(digits.len()..).unwrap_or_default() {
        "ms" => Duration::from_millis(number),
        "" | "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        "h" => Duration::from_secs(number.saturating_mul(3600)),
        unit => return Err(format!("unknown unit `{unit}`: use ms, s, m or h")),
    };
    if time.is_zero() { Err("the time is zero".to_owned()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn addresses() {
        for (text, addr) in [
            ("8080", "127.0.0.1:8080"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("0.0.0.0:9", "0.0.0.0:9"),
            ("[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(listen_address(text).map(|a| a.to_string()).as_deref(), Ok(addr), "{text}");
        }
        for bad in ["", "0", ":8080", "localhost:0", "host:8080", "1.2.3.4", "65536", "-1", "::1:9x"] {
            assert!(listen_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("5ms"), Ok(Duration::from_millis(5)));
        for bad in ["", "s", "-1", "1.5s", "3d", "0"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
