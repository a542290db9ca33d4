//! `policy check | explain | test | diff`.

mod explain;

use std::{fs, path::PathBuf};

use stockade_policy::{Policy, Posture, Rejected, Snapshot, Source, cases};
use stockade_supervisor::Steering;
use stockade_types::Generation;

use crate::{Failure, args::PolicyCommand};

pub(crate) fn run(command: PolicyCommand) -> Result<u8, Failure> {
    match command {
        PolicyCommand::Check { files, json } => check(&files, json),
        PolicyCommand::Explain(args) => explain::run(&args),
        PolicyCommand::Diff { before, after, json } => diff(before, after, json),
        PolicyCommand::Test { policy, cases, json } => test(&policy, &cases, json),
    }
}

/// Reads and compiles, as `run` would.
fn load(files: &[PathBuf]) -> Result<Result<(Policy, Snapshot), Rejected>, Failure> {
    let mut steering = Steering::read(files).map_err(Failure::new)?;
    let parsed = if files.is_empty() { Policy::builtin() } else { Policy::parse(&steering.sources) };
    let policy = match parsed {
        Ok(policy) => policy,
        Err(rejected) => return Ok(Err(rejected)),
    };
    steering.read_modules(&policy).map_err(Failure::new)?;
    let snapshot = Snapshot::compile(&policy, &steering.modules, Generation::FIRST, Posture::Enforce);
    Ok(snapshot.map(|s| (policy, s)))
}

fn usable(files: &[PathBuf]) -> Result<(Policy, Snapshot), Failure> {
    load(files)?.map_err(|r| Failure::new(format_args!("the policy is not valid\n{r}")))
}

fn check(files: &[PathBuf], json: bool) -> Result<u8, Failure> {
    match load(files)? {
        Ok((policy, snapshot)) => {
            let endpoints = policy.network().endpoints.len();
            if json {
                println!("{}", serde_json::json!({"ok": true, "endpoints": endpoints, "digest": snapshot.digest()}));
            } else {
                let s = if endpoints == 1 { "" } else { "s" };
                println!("the policy is valid: {endpoints} endpoint{s}, sha256 {}", snapshot.digest());
                let weakened = policy.process().require_weakened();
                weakened
                    .iter()
                    .for_each(|l| println!("note: `{l}` is not required, so a start without it is possible"));
                policy.process().relax.iter().for_each(|r| println!("note: relaxed: {}", r.name()));
                if policy.filesystem().protected.is_empty() {
                    println!(
                        "note: `filesystem.protected` is empty, so git hooks and settings of agents can be written"
                    );
                }
                let audited = policy.audited();
                audited.iter().for_each(|e| println!("note: `{e}` is not enforced (mode: audit)"));
            }
            Ok(0)
        }
        Err(rejected) if json => {
            println!("{}", serde_json::json!({"ok": false, "errors": rejected.0}));
            Ok(1)
        }
        Err(rejected) => {
            eprintln!("{rejected}");
            Ok(1)
        }
    }
}

/// Ends with 1 where the change allows something that was not allowed before.
fn diff(before: PathBuf, after: PathBuf, json: bool) -> Result<u8, Failure> {
    let [(_, older), (_, newer)] = [usable(&[before])?, usable(&[after])?];
    let diff = older.diff(&newer);
    if json {
        println!("{}", serde_json::to_string(&diff).map_err(Failure::new)?);
    } else {
        print!("{diff}");
    }
    Ok(u8::from(!diff.newly_allowed.is_empty()))
}

fn test(files: &[PathBuf], case_files: &[PathBuf], json: bool) -> Result<u8, Failure> {
    // The built-in policy is none that somebody wrote tests for.
    let snapshot = if files.is_empty() { None } else { Some(usable(files)?.1) };
    let (mut passed, mut failed, mut rows) = (0, 0, Vec::new());
    for file in case_files {
        let name = file.display().to_string();
        let text = fs::read_to_string(file).map_err(|e| Failure::new(format_args!("{name}: {e}")))?;
        let outcomes = cases::run(&Source::new(name.clone(), text), snapshot.as_ref()).map_err(Failure::new)?;
        for o in outcomes {
            match &o.failure {
                None => passed += 1,
                Some(why) => {
                    failed += 1;
                    if !json {
                        let note = if o.note.is_empty() { String::new() } else { format!("{}: ", o.note) };
                        println!("{name}:{}: {note}{why}", o.at.line);
                    }
                }
            }
            if json {
                rows.push(serde_json::json!({"file": name, "line": o.at.line, "note": o.note, "failure": o.failure}));
            }
        }
    }
    if json {
        println!("{}", serde_json::json!({"passed": passed, "failed": failed, "cases": rows}));
    } else {
        println!("{passed} passed, {failed} failed");
    }
    Ok(u8::from(failed > 0))
}
