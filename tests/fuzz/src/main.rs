//! `stockade-fuzz SECONDS [TARGET…]`: runs each target that long. `stockade-fuzz --replay TARGET FILE`: one input.
#![forbid(unsafe_code)]

use std::{
    env, fs,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use stockade_fuzz::{
    TARGETS, Target,
    campaign::{Crash, Until, corpus, run, save},
};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let outcome = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--replay", target, file] => replay(target, file),
        [seconds, ref targets @ ..] => smoke(seconds, targets),
        [] => Err("usage: stockade-fuzz SECONDS [TARGET…] | --replay TARGET FILE".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn find(name: &str) -> Result<&'static Target, String> {
    let names = || TARGETS.iter().map(|t| t.name).collect::<Vec<_>>().join(" ");
    TARGETS.iter().find(|t| t.name == name).ok_or_else(|| format!("no target `{name}`; there are: {}", names()))
}

fn replay(target: &str, file: &str) -> Result<(), String> {
    let input = fs::read(file).map_err(|e| format!("{file}: {e}"))?;
    println!("signature {:016x}", (find(target)?.run)(&input));
    Ok(())
}

fn smoke(seconds: &str, names: &[&str]) -> Result<(), String> {
    let time: u64 = seconds.parse().map_err(|_| format!("`{seconds}` is no number of seconds"))?;
    let targets: Vec<&Target> = if names.is_empty() {
        TARGETS.iter().collect()
    } else {
        names.iter().map(|n| find(n)).collect::<Result<_, _>>()?
    };
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_secs());
    let mut failed = Vec::new();
    for target in targets {
        let corpus = corpus(target).map_err(|e| format!("corpus of {}: {e}", target.name))?;
        match run(target, corpus, seed, Until::Time(Duration::from_secs(time))) {
            Ok(done) => {
                println!("{:13} {:9} inputs, {:4} behaviours, seed {seed}", target.name, done.inputs, done.behaviours)
            }
            Err(Crash(input)) => {
                let saved = save(target.name, &input).map_err(|e| e.to_string())?;
                println!(
                    "{:13} FAILED; again with: stockade-fuzz --replay {} {}",
                    target.name,
                    target.name,
                    saved.display()
                );
                failed.push(target.name);
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(" "))) }
}
