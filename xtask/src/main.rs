//! House rules that no ready-made tool checks: `cargo xtask tidy`; and the table of clients: `cargo xtask clients`.
#![forbid(unsafe_code)]

mod sources;
mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tidy"] => tidy::run(),
        ["clients"] => tidy::write_clients(),
        _ => {
            eprintln!("usage: cargo xtask tidy | clients");
            ExitCode::from(2)
        }
    }
}
