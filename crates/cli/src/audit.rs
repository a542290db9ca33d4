//! `audit tail | verify | export`.

use std::{
    fs::File,
    io::{self, BufReader, Write},
    path::Path,
    thread,
    time::Duration,
};

use stockade_audit::{
    Entry, Follow, Format, export,
    export::{csv_header, text},
    follow::{From, Polled},
    verify::{self as check, verify},
};

use crate::{
    Failure,
    args::{AuditCommand, ExportFormat},
};

/// Between two looks at a log that is followed.
const POLL: Duration = Duration::from_millis(200);

pub(crate) fn run(command: AuditCommand) -> Result<u8, Failure> {
    match command {
        AuditCommand::Tail { file, follow, lines } => tail(&file, follow, lines),
        AuditCommand::Verify { file, expect_head, json } => verify_log(&file, expect_head.as_deref(), json),
        AuditCommand::Export { file, format } => convert(&file, format),
    }
}

fn unreadable(file: &Path) -> impl Fn(io::Error) -> Failure + '_ {
    move |e| Failure::new(format_args!("audit log {}: {e}", file.display()))
}

fn tail(file: &Path, follow: bool, lines: usize) -> Result<u8, Failure> {
    let mut log = Follow::open(file, From::Last(lines)).map_err(unreadable(file))?;
    let mut out = io::stdout().lock();
    let mut odd = 0;
    loop {
        let mut wrote = Ok(());
        let polled = log.poll(|line| {
            odd += u64::from(Entry::parse(line).is_none());
            if wrote.is_ok() {
                wrote = writeln!(out, "{}", text(line));
            }
        });
        // A reader that went away (`| head`) ends it quietly.
        if wrote.and_then(|()| out.flush()).is_err() {
            return Ok(0);
        }
        if polled.map_err(unreadable(file))? == Polled::Gap {
            eprintln!("stockade: the log was rotated faster than it was read; lines may be missing here");
        }
        if !follow {
            return Ok(no_events(file, odd));
        }
        thread::sleep(POLL);
    }
}

/// Says that a file has lines of something else, which is an answer too: 1.
fn no_events(file: &Path, lines: u64) -> u8 {
    match lines {
        0 => return 0,
        1 => eprintln!("stockade: {}: 1 line is no event of an audit log", file.display()),
        n => eprintln!("stockade: {}: {n} lines are no events of an audit log", file.display()),
    }
    1
}

fn verify_log(file: &Path, head: Option<&str>, json: bool) -> Result<u8, Failure> {
    match verify(file, head) {
        Ok(v) if json => {
            let value = serde_json::json!({
                "ok": true, "lines": v.lines, "first": v.first, "last": v.last, "head": v.head,
                "from_genesis": v.from_genesis, "torn": v.torn, "runs": v.runs,
            });
            println!("{value}");
        }
        Ok(v) => {
            let s = if v.runs == 1 { "" } else { "s" };
            println!("the chain is whole: {} lines, number {} to {}, {} run{s}", v.lines, v.first, v.last, v.runs);
            println!("head {}", v.head);
            if !v.from_genesis {
                println!("older files are not here: the chain begins at line number {}", v.first);
            }
            if v.torn > 0 {
                println!("{} lines were cut off by a crash, and marked", v.torn);
            }
        }
        Err(check::VerifyError::Io { file, source }) => return Err(unreadable(&file)(source)),
        Err(e) if json => {
            println!("{}", serde_json::json!({"ok": false, "error": e.to_string()}));
            return Ok(1);
        }
        Err(e) => {
            eprintln!("stockade: the audit log is not whole: {e}");
            return Ok(1);
        }
    }
    Ok(0)
}

fn convert(log: &Path, format: ExportFormat) -> Result<u8, Failure> {
    let format = match format {
        ExportFormat::Ocsf => Format::Ocsf,
        ExportFormat::Csv => Format::Csv,
        ExportFormat::Text => Format::Text,
    };
    let mut out = io::stdout().lock();
    let mut unreadable_lines = 0;
    let mut files = check::files(log);
    if files.is_empty() {
        files.push(log.to_owned());
    }
    if matches!(format, Format::Csv) {
        writeln!(out, "{}", csv_header())?;
    }
    for file in files {
        let reader = BufReader::new(File::open(&file).map_err(unreadable(&file))?);
        unreadable_lines += export(reader, format, &mut out).map_err(unreadable(&file))?.unreadable;
    }
    Ok(no_events(log, unreadable_lines))
}
