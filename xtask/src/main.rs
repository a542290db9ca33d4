//! House rules that no ready-made tool checks: `cargo xtask tidy`; the table of clients: `cargo xtask
//! clients`; what the program is made of: `cargo xtask sbom`.
#![forbid(unsafe_code)]

mod sbom;
mod sources;
mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tidy"] => tidy::run(),
        ["clients"] => tidy::write_clients(),
        ["sbom"] => sbom::print(),
        _ => {
            eprintln!("usage: cargo xtask tidy | clients | sbom");
            ExitCode::from(2)
        }
    }
}
