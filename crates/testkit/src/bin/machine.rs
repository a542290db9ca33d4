//! Prints what this machine can do; with `--require a,b` fails when one of those is missing. For `.ci/run`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use stockade_testkit::machine::{Feature, probe};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let required = match (args.next().as_deref(), args.next()) {
        (None, None) => Vec::new(),
        (Some("--require"), Some(list)) => match list.split(',').map(str::parse).collect::<Result<Vec<Feature>, _>>() {
            Ok(required) => required,
            Err(e) => return usage(&e),
        },
        _ => return usage("wrong arguments"),
    };
    let mut code = ExitCode::SUCCESS;
    for feature in Feature::ALL {
        let found = probe(feature);
        println!("{:10} {} ({})", format!("{feature}:"), if found.present { "yes" } else { "no " }, found.detail);
        if !found.present && required.contains(&feature) {
            eprintln!("machine: {feature} is required here");
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn usage(problem: &str) -> ExitCode {
    let names: Vec<_> = Feature::ALL.iter().map(Feature::to_string).collect();
    eprintln!("machine: {problem}\nusage: machine [--require {}]", names.join(","));
    ExitCode::from(2)
}
