//! `run` and `learn`.

mod blocked;
mod learned;

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use stockade_supervisor::{
    self as supervisor, Access, Config, Duty, Finished, Limits, Operations, Posture, TerminalChoice, Voice, Workspace,
    say,
};

use crate::{
    Failure,
    args::{LearnArgs, LogFormat, LogLevel, RunArgs, SandboxArgs},
    ssh,
};

/// `stockade run`.
pub(crate) fn run(args: RunArgs) -> Result<u8, Failure> {
    supervised(args, Duty::default())
}

/// The same with the duties of an entrypoint.
pub(crate) fn supervised(args: RunArgs, duty: Duty) -> Result<u8, Failure> {
    let mut config = config(args.sandbox, Posture::Enforce)?;
    config.allow = args.allow;
    config.duty = Duty { notices: config.duty.notices.into_iter().chain(duty.notices).collect(), ..duty };
    let finished = supervisor::run(&config)?;
    say_blocked(&config, &finished);
    say_usage(&config, &finished);
    Ok(finished.code)
}

/// `stockade learn`.
pub(crate) fn learn(args: LearnArgs) -> Result<u8, Failure> {
    let output = std::path::absolute(&args.output)?;
    let config = config(args.sandbox, Posture::Learn { output: output.clone(), inspect: args.inspect })?;
    let finished = supervisor::run(&config)?;
    if let Some(written) = &finished.learned {
        learned::lines(&output, written).iter().for_each(|line| say(format_args!("{line}")));
    }
    say_usage(&config, &finished);
    Ok(finished.code)
}

fn config(args: SandboxArgs, posture: Posture) -> Result<Config, Failure> {
    let log_format = match args.log_format {
        LogFormat::Text => supervisor::LogFormat::Text,
        LogFormat::Json => supervisor::LogFormat::Json,
    };
    supervisor::log_format(log_format);
    let unset = args.env.iter().filter(|e| !e.as_bytes().contains(&b'=') && std::env::var_os(e).is_none());
    let notices =
        unset.map(|name| format!("--env {}: not set here, so nothing is passed on", name.display())).collect();
    Ok(Config {
        command: args.command,
        policy: args.policy,
        allow: Vec::new(),
        posture,
        workspace: args.workspace.as_deref().map(workspace).transpose()?.unwrap_or_default(),
        env: args.env.into_iter().filter_map(variable).collect::<Result<_, _>>()?,
        user: args.user,
        limits: Limits { memory: args.memory, cpus: args.cpus, pids: args.pids },
        upstream_ca: args.upstream_ca,
        timeout: args.timeout,
        grace: args.grace,
        audit_log: args.audit_log,
        require: args.require,
        terminal: if args.terminal { TerminalChoice::Always } else { TerminalChoice::Auto },
        voice: match args.log_level {
            LogLevel::Error => Voice::Errors,
            LogLevel::Notice => Voice::Notices,
            LogLevel::Info => Voice::Denials,
            LogLevel::Debug => Voice::Everything,
        },
        // It serves files to SSH clients from inside.
        read_only: if args.ssh.ssh.is_some() { vec![std::env::current_exe()?] } else { Vec::new() },
        ssh: ssh::options(args.ssh)?,
        duty: Duty { notices, ..Duty::default() },
        operations: Operations {
            health: args.health,
            metrics: args.metrics,
            publish: args.publish,
            traces: args.traces,
            log_format,
        },
    })
}

/// `DIR`, `DIR:ro`, `DIR:rw`, `none`.
fn workspace(text: &OsStr) -> Result<Workspace, Failure> {
    if text == "none" {
        return Ok(Workspace { path: None, access: Some(Access::None) });
    }
    let bytes = text.as_bytes();
    let suffixes = [(&b":ro"[..], Access::ReadOnly), (b":rw", Access::ReadWrite), (b":none", Access::None)];
    let split = suffixes.iter().find_map(|(s, access)| Some((bytes.strip_suffix(*s)?, *access)));
    let (dir, access) = split.map_or((bytes, None), |(dir, access)| (dir, Some(access)));
    if dir.is_empty() {
        return Err(Failure::new("--workspace: the directory is missing; write DIR, DIR:ro or DIR:rw"));
    }
    if access.is_none()
        && let Some(at) = dir.iter().rposition(|b| *b == b':')
        && let (Some(before), Some(word)) = (dir.get(..at), dir.get(at + 1..))
        && !exists(dir)
        && exists(before)
    {
        let word = String::from_utf8_lossy(word);
        return Err(Failure::new(format_args!(
            "--workspace: `{word}` is no access; write DIR, DIR:ro, DIR:rw or DIR:none"
        )));
    }
    Ok(Workspace { path: Some(PathBuf::from(OsStr::from_bytes(dir))), access })
}

fn exists(path: &[u8]) -> bool {
    Path::new(OsStr::from_bytes(path)).exists()
}

/// `K=V` sets; `K` passes on, and is nothing when the variable is not set.
fn variable(text: OsString) -> Option<Result<(OsString, OsString), Failure>> {
    let bytes = text.as_bytes();
    let (name, value) = match bytes.iter().position(|&b| b == b'=') {
        Some(at) => (bytes.get(..at)?.to_vec(), Some(OsString::from_vec(bytes.get(at + 1..)?.to_vec()))),
        None => (bytes.to_vec(), std::env::var_os(&text)),
    };
    if name.is_empty() {
        return Some(Err(Failure::new("--env: the variable's name is missing; write K=V, or K to pass one on")));
    }
    value.map(|v| Ok((OsString::from_vec(name), v)))
}

/// What was blocked or failed and what would change it, then where the audit log stands.
fn say_blocked(config: &Config, finished: &Finished) {
    if config.voice < Voice::Notices {
        return;
    }
    let rest = match (&finished.head, finished.log_failing) {
        (None, _) => "; `--audit-log FILE` keeps them all",
        (Some(_), false) => "; the audit log has them all",
        (Some(_), true) => "",
    };
    let around = blocked::Around { flags: config.policy.is_empty(), rest };
    blocked::lines(&finished.summary, around).iter().for_each(|line| say(format_args!("{line}")));
    if let Some(head) = &finished.head {
        let head = head.get();
        say(format_args!("stockade: audit log {}, line {}, head {}", head.path.display(), head.sequence, head.hash));
    }
}

fn say_usage(config: &Config, finished: &Finished) {
    if config.voice < Voice::Everything {
        return;
    }
    let usage = &finished.usage;
    let memory = usage.peak_memory.map_or_else(|| "unknown".to_owned(), |b| format!("{} MiB", b >> 20));
    let processes = usage.peak_processes.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    say(format_args!(
        "stockade: used {:.2} s of CPU, {memory} of memory at most, {processes} processes at most",
        usage.cpu.as_secs_f64()
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspaces() {
        let parse = |t: &str| workspace(OsStr::new(t)).map(|w| (w.path, w.access)).map_err(|f| f.text);
        assert_eq!(parse("a"), Ok((Some("a".into()), None)));
        assert_eq!(parse("a:ro"), Ok((Some("a".into()), Some(Access::ReadOnly))));
        assert_eq!(parse("a:b"), Ok((Some("a:b".into()), None)));
        assert_eq!(parse("none"), Ok((None, Some(Access::None))));
        assert!(parse(":ro").is_err());
    }

    #[test]
    fn variables() {
        let parse = |t: &str| variable(t.into()).map(|r| r.map_err(|f| f.text));
        assert_eq!(parse("K=a=b"), Some(Ok(("K".into(), "a=b".into()))));
        assert_eq!(parse("STOCKADE_NO_SUCH_VARIABLE"), None);
        assert!(parse("=v").is_some_and(|r| r.is_err()));
    }
}
