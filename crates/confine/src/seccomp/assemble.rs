//! From rows to one BPF program.
//!
//! `seccompiler` compiles one answer per filter, kills what it does not expect, and has no guard for x32 and unknown
//! numbers; so the program is put together here, and `seccompiler` lends its instruction type and installs it.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, sock_filter};

use super::{
    Arch, SeccompError,
    rules::{Action, Condition, Row, Test},
    table,
};

// Instruction codes: linux/bpf_common.h.
const LD_ABS: u16 = 0x20;
const AND: u16 = 0x54;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const JSET: u16 = 0x45;
const RET: u16 = 0x06;

// struct seccomp_data: linux/seccomp.h.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

const X32_BIT: u32 = 0x4000_0000;

/// What happens to one call.
enum Fate<'a> {
    Always(Action),
    /// Tried in order; none holds: allowed.
    Depends(Vec<&'a Row>),
}

/// Where a jump goes, before distances are known.
#[derive(Clone, Copy)]
enum To {
    Next,
    /// This condition holds: on to the next one, or to the row's answer.
    Holds,
    /// It does not: past the row.
    Fails,
}

/// The whole program.
pub(super) fn program<'a>(arch: Arch, rows: impl Iterator<Item = &'a Row>) -> Result<BpfProgram, SeccompError> {
    let fates = fates(arch, rows)?;
    let mut out = guard(arch);
    for (number, rows) in fates.iter().filter_map(|(n, f)| match f {
        Fate::Depends(rows) => Some((*n, rows)),
        Fate::Always(_) => None,
    }) {
        let mut block = Vec::new();
        for row in rows {
            row_code(row, &mut block)?;
        }
        block.push(ret(ALLOW));
        let first = rows.first().copied();
        out.push(jump(JEQ, number.into(), 0, distance(block.len(), first)?));
        out.extend(block);
    }
    for (low, high, action) in runs(arch, &fates) {
        if low == high {
            out.push(jump(JEQ, low.into(), 0, 1));
        } else {
            out.push(jump(JGE, low.into(), 0, 2));
            out.push(jump(JGT, high.into(), 1, 0));
        }
        out.push(ret(answer(action)));
    }
    out.push(ret(ALLOW));
    Ok(out)
}

/// The fate of every call that a row speaks about.
fn fates<'a>(arch: Arch, rows: impl Iterator<Item = &'a Row>) -> Result<BTreeMap<u16, Fate<'a>>, SeccompError> {
    let mut fates: BTreeMap<u16, Fate<'a>> = BTreeMap::new();
    for row in rows {
        for call in &row.calls {
            let unknown = |_| SeccompError::Row {
                file: row.file,
                call: call.clone(),
                detail: "no architecture has a system call of this name".to_owned(),
            };
            let Some(number) = table::number(call, arch).map_err(unknown)? else { continue };
            match (fates.get_mut(&number), row.when.is_empty()) {
                (Some(Fate::Always(_)), _) => {}
                (Some(Fate::Depends(rows)), false) => rows.push(row),
                (_, true) => drop(fates.insert(number, Fate::Always(row.action))),
                (None, false) => drop(fates.insert(number, Fate::Depends(vec![row]))),
            }
        }
    }
    Ok(fates)
}

/// Architecture, x32 and ceiling; leaves the call's number in the accumulator.
fn guard(arch: Arch) -> BpfProgram {
    let audit = match arch {
        Arch::X86_64 => 0xc000_003e,
        Arch::Aarch64 => 0xc000_00b7,
    };
    let mut out = vec![load(ARCHITECTURE), jump(JEQ, audit, 1, 0), ret(KILL_PROCESS), load(NUMBER)];
    if arch == Arch::X86_64 {
        // -1 has the x32 bit too, and is simply no call.
        out.extend([jump(JEQ, u32::MAX, 2, 0), jump(JSET, X32_BIT, 0, 1), ret(answer(Action::EPERM))]);
    }
    out.extend([jump(JGT, table::CEILING.into(), 0, 1), ret(answer(Action::ENOSYS))]);
    out
}

/// Neighbouring numbers with the same unconditional answer, gaps in the table included.
fn runs(arch: Arch, fates: &BTreeMap<u16, Fate<'_>>) -> Vec<(u16, u16, Action)> {
    let known: std::collections::BTreeSet<u16> = table::calls(arch).map(|(_, n)| n).collect();
    let mut runs: Vec<(u16, u16, Action)> = Vec::new();
    for number in 0..=table::CEILING {
        let action = match fates.get(&number) {
            Some(Fate::Always(action)) => *action,
            Some(Fate::Depends(_)) => continue,
            None if known.contains(&number) => continue,
            None => Action::ENOSYS,
        };
        match runs.last_mut() {
            Some((_, high, same)) if *high + 1 == number && *same == action => *high = number,
            _ => runs.push((number, number, action)),
        }
    }
    runs
}

/// One conditional row: its conditions, then its answer.
fn row_code(row: &Row, out: &mut BpfProgram) -> Result<(), SeccompError> {
    let conditions: Vec<Vec<(u16, u32, To, To)>> = row.when.iter().map(condition_code).collect();
    let mut left: usize = conditions.iter().map(Vec::len).sum();
    for condition in conditions {
        let mut ahead = condition.len();
        for (code, k, yes, no) in condition {
            ahead -= 1;
            left -= 1;
            let to = |to: To| match to {
                To::Next => Ok(0),
                To::Holds => distance(ahead, Some(row)),
                To::Fails => distance(left + 1, Some(row)),
            };
            out.push(sock_filter { code, jt: to(yes)?, jf: to(no)?, k });
        }
    }
    out.push(ret(answer(row.action)));
    Ok(())
}

/// Falls through, or jumps to `Holds`, when the condition holds.
fn condition_code(c: &Condition) -> Vec<(u16, u32, To, To)> {
    use To::{Fails, Holds, Next};
    let low = ARGUMENTS + 8 * u32::from(c.arg);
    let load = |at| (LD_ABS, at, Next, Next);
    // Little endian, as both architectures are: the high half stands behind the low one.
    let halves = |v: u64| ((v >> 32) as u32, (v & u64::from(u32::MAX)) as u32);
    let mut code = vec![load(low)];
    code.extend(c.mask.map(|m| (AND, m, Next, Next)));
    match &c.test {
        Test::Eq(v) => code.push((JEQ, *v, Holds, Fails)),
        Test::Ne(v) => code.push((JEQ, *v, Fails, Holds)),
        Test::WideEq(v) => {
            code.push((JEQ, halves(*v).1, Next, Fails));
            code.extend([load(low + 4), (JEQ, halves(*v).0, Holds, Fails)]);
        }
        Test::WideNe(v) => {
            code.push((JEQ, halves(*v).1, Next, Holds));
            code.extend([load(low + 4), (JEQ, halves(*v).0, Fails, Holds)]);
        }
        Test::Any(bits) => code.push((JSET, *bits, Holds, Fails)),
        Test::In(list) => {
            code.extend(list.iter().map(|v| (JEQ, *v, Holds, Next)));
            if let Some(last) = code.last_mut() {
                last.3 = Fails;
            }
        }
        Test::NotIn(list) => code.extend(list.iter().map(|v| (JEQ, *v, Fails, Next))),
    }
    code
}

fn distance(n: usize, row: Option<&Row>) -> Result<u8, SeccompError> {
    u8::try_from(n).map_err(|_| SeccompError::Row {
        file: row.map_or("", |r| r.file),
        call: row.and_then(|r| r.calls.first()).cloned().unwrap_or_default(),
        detail: "its conditions are longer than a jump reaches: split the call's rows".to_owned(),
    })
}

fn answer(action: Action) -> u32 {
    use nix::errno::Errno;
    let errno = match action {
        Action::EPERM => Errno::EPERM,
        Action::ENOSYS => Errno::ENOSYS,
        Action::EAFNOSUPPORT => Errno::EAFNOSUPPORT,
        Action::EPROTONOSUPPORT => Errno::EPROTONOSUPPORT,
        Action::Kill => return KILL_PROCESS,
    };
    ERRNO | (errno as u32)
}

fn load(at: u32) -> sock_filter {
    sock_filter { code: LD_ABS, jt: 0, jf: 0, k: at }
}

fn ret(k: u32) -> sock_filter {
    sock_filter { code: RET, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}
