//! Every row of the system call filter, asked of the running kernel by raw system calls.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use stockade_confine::seccomp::{Action, Arch, Condition, Filter, Row, Test, relaxations, rows, table};
use stockade_sys::testing::{Probed, probe};
use stockade_testkit::{child::Child, skip};

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;
const EPROTONOSUPPORT: i32 = 93;
const EAFNOSUPPORT: i32 = 97;

fn native() -> Arch {
    Arch::native().unwrap()
}

fn numbers() -> BTreeMap<&'static str, i64> {
    table::calls(native()).map(|(name, nr)| (name, nr.into())).collect()
}

/// The call under a filter; `None`: without one. In a session of its own, so that no terminal of ours is at stake.
fn ask(filter: Option<&Filter>, number: i64, args: [u64; 6]) -> Probed {
    let setup = || {
        nix::unistd::setsid().map_err(|e| e.to_string())?;
        filter.map_or(Ok(()), |f| f.apply().map(drop).map_err(|e| e.to_string()))
    };
    probe(setup, number, args).unwrap()
}

fn errno(action: Action) -> Probed {
    match action {
        Action::EPERM => Probed::Errno(EPERM),
        Action::ENOSYS => Probed::Errno(ENOSYS),
        Action::EAFNOSUPPORT => Probed::Errno(EAFNOSUPPORT),
        Action::EPROTONOSUPPORT => Probed::Errno(EPROTONOSUPPORT),
        Action::Kill => Probed::Killed(31),
    }
}

/// Values of one argument for which the condition holds; with rubbish in the high half where the kernel reads 32 bits.
fn satisfying(c: &Condition) -> Vec<u64> {
    const HIGH: u64 = 0xdead_0000_0000_0000;
    match &c.test {
        Test::Eq(v) => vec![(*v).into(), HIGH | u64::from(*v)],
        Test::Ne(v) => vec![u64::from(*v ^ 1)],
        Test::Any(bits) => (0..32).filter(|b| bits >> b & 1 == 1).map(|b| HIGH | 1 << b).collect(),
        Test::In(list) => list.iter().map(|v| u64::from(*v) | HIGH).collect(),
        Test::NotIn(list) => {
            let mask = c.mask.unwrap_or(0x1ff);
            (0..=mask).filter(|v| !list.contains(v)).take(300).map(u64::from).collect()
        }
        Test::WideEq(v) => vec![*v],
        // A pointer that is none.
        Test::WideNe(_) => vec![1],
    }
}

/// Argument lists that a row is about: every value of one condition with the first of the others; -1 where the row
/// does not look, which no call takes for something to act on.
fn arguments(row: &Row) -> Vec<[u64; 6]> {
    let mut base = [u64::MAX; 6];
    for c in &row.when {
        base[usize::from(c.arg)] = satisfying(c)[0];
    }
    let mut lists = vec![base];
    for c in &row.when {
        for value in satisfying(c) {
            let mut args = base;
            args[usize::from(c.arg)] = value;
            lists.push(args);
        }
    }
    lists
}

#[test]
fn every_row_answers_as_written() {
    let filter = Filter::compile(native(), &[]).unwrap();
    let numbers = numbers();
    let mut asked = 0;
    for row in rows().unwrap() {
        for (call, number) in row.calls.iter().filter_map(|c| numbers.get(c.as_str()).map(|n| (c, *n))) {
            for args in arguments(&row) {
                let got = ask(Some(&filter), number, args);
                // Two rows may speak about one list (a raw socket of an unknown protocol): the first one answers.
                let sockets = call == "socket" && matches!(got, Probed::Errno(EPERM | EPROTONOSUPPORT | EAFNOSUPPORT));
                assert!(got == errno(row.action) || sockets, "{call} {args:x?}: {got:?}, row says {:?}", row.action);
                asked += 1;
            }
        }
    }
    assert!(asked > 500, "{asked} questions");
}

/// The control: without the filter the same calls give another answer, so it is the filter that the test above sees.
#[test]
fn without_the_filter_the_kernel_answers_otherwise() {
    if !nix::unistd::geteuid().is_root() {
        skip!("not root: the kernel itself says EPERM to most of these");
    }
    let numbers = numbers();
    let mut same = BTreeSet::new();
    for row in rows().unwrap() {
        for (call, number) in row.calls.iter().filter_map(|c| numbers.get(c.as_str()).map(|n| (c, *n))) {
            if arguments(&row).iter().all(|args| ask(None, number, *args) == errno(row.action)) {
                same.insert(call.clone());
            }
        }
    }
    // Calls that the kernel does not have (any more) answer as their rows do.
    let (gone, unexplained): (BTreeSet<_>, BTreeSet<_>) =
        same.iter().partition(|name| ask(None, numbers[name.as_str()], [u64::MAX; 6]) == Probed::Errno(ENOSYS));
    println!("not tested by contrast, absent from this kernel: {gone:?}");
    assert!(unexplained.is_empty(), "same answer with and without the filter: {unexplained:?}");
    assert!(same.len() < 25, "{same:?}");
}

/// The tripwire: with its relaxation each such call gets past the filter.
#[test]
fn a_relaxed_row_lets_through() {
    if !nix::unistd::geteuid().is_root() {
        skip!("not root: the kernel itself says EPERM to most of these");
    }
    let rows = rows().unwrap();
    let numbers = numbers();
    for relaxation in relaxations(&rows) {
        let filter = Filter::compile(native(), &[&relaxation.name]).unwrap();
        for row in rows.iter().filter(|r| r.relax.as_ref() == Some(&relaxation.name)) {
            for (call, number) in row.calls.iter().filter_map(|c| numbers.get(c.as_str()).map(|n| (c, *n))) {
                let args = arguments(row)[0];
                let (with, without) = (ask(Some(&filter), number, args), ask(None, number, args));
                assert_eq!(with, without, "{call} with {}", relaxation.name);
            }
        }
    }
}

#[test]
fn numbers_without_a_call_do_not_exist() {
    let filter = Filter::compile(native(), &[]).unwrap();
    let known: BTreeSet<i64> = numbers().into_values().collect();
    let ceiling = i64::from(table::CEILING);
    let unknown = (0..=ceiling + 64).filter(|n| !known.contains(n));
    for number in unknown.chain([-1, i64::from(u32::MAX), 100_000]) {
        assert_eq!(ask(Some(&filter), number, [0; 6]), Probed::Errno(ENOSYS), "{number}");
    }
}

/// The table against the kernel's own: a call that is new there cannot be forgotten here.
#[test]
fn the_table_knows_every_call_of_the_kernel() {
    let numbers = numbers();
    let mut compared = 0;
    for (path, arch) in [("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", Arch::X86_64)] {
        let Ok(text) = fs::read_to_string(path) else { continue };
        let ours: BTreeMap<_, _> = table::calls(arch).map(|(name, nr)| (name.to_owned(), nr)).collect();
        for (name, number) in header(&text) {
            assert_eq!(ours.get(&name), Some(&number), "{path}: {name} {number}");
            compared += 1;
        }
    }
    if let Ok(text) = fs::read_to_string("/usr/include/asm-generic/unistd.h") {
        let ours: BTreeMap<u16, &str> = table::calls(Arch::Aarch64).map(|(name, nr)| (nr, name)).collect();
        // Names of the generic table differ in a few places (fstatat, mmap, ...): numbers are what the filter uses.
        // 403 to 423 are the 64-bit times of 32-bit machines.
        for (name, number) in
            header(&text).into_iter().filter(|(_, nr)| !(244..260).contains(nr) && !(403..424).contains(nr))
        {
            assert!(ours.contains_key(&number), "asm-generic: {name} {number}");
            compared += 1;
        }
    }
    // Names the running kernel exports, those of 32-bit programs left out.
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let running: BTreeSet<&str> =
        symbols.lines().filter_map(|l| l.split(" __x64_sys_").nth(1)?.split('.').next()).collect();
    let ours: BTreeSet<&str> = numbers.keys().copied().collect();
    let thirty_two: BTreeSet<&str> = include_str!("seccomp/thirty_two_bit.txt").lines().collect();
    let forgotten: Vec<_> = running.iter().filter(|n| !ours.contains(*n) && !thirty_two.contains(*n)).collect();
    assert!(forgotten.is_empty(), "the kernel has {forgotten:?}: raise the ceiling, and decide about a row");
    if compared + running.len() == 0 {
        skip!("neither kernel headers nor kernel symbols to compare with");
    }
}

/// `#define __NR_name number` lines.
fn header(text: &str) -> Vec<(String, u16)> {
    text.lines()
        .filter_map(|l| {
            let mut words = l.strip_prefix("#define __NR_")?.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        })
        .filter(|(name, _)| name != "syscalls")
        .collect()
}

#[cfg(target_arch = "x86_64")]
#[test]
fn other_abis_are_closed() {
    use stockade_sys::testing::probe_int80;
    const GETPID_I386: u32 = 20;
    const X32: i64 = 0x4000_0000;
    let filter = Filter::compile(native(), &[]).unwrap();
    let enter = || filter.apply().map(drop).map_err(|e| e.to_string());
    // SIGSYS; the control shows that this kernel would have served the call.
    assert_eq!(probe_int80(enter, GETPID_I386).unwrap(), Probed::Killed(31));
    if probe_int80(|| Ok(()), GETPID_I386).unwrap() != Probed::Done {
        println!("no contrast: this kernel has no 32-bit gate");
    }
    for call in ["getpid", "socket", "mount", "openat"] {
        assert_eq!(ask(Some(&filter), X32 | numbers()[call], [0; 6]), Probed::Errno(EPERM), "{call}");
    }
}

#[test]
fn filter_and_no_new_privs_reach_threads_and_programs() {
    Child::new().run(|| {
        Filter::compile(native(), &[]).unwrap().apply().unwrap();
        let lines = |status: String| -> Vec<String> {
            status
                .lines()
                .filter(|l| l.starts_with("Seccomp:") || l.starts_with("NoNewPrivs:"))
                .map(|l| l.split_whitespace().collect())
                .collect()
        };
        let want = ["NoNewPrivs:1".to_owned(), "Seccomp:2".to_owned()];
        let thread = || fs::read_to_string("/proc/thread-self/status").unwrap();
        assert_eq!(lines(thread()), want);
        // clone3 answers ENOSYS, so this is also the fall-back to clone.
        assert_eq!(lines(std::thread::spawn(thread).join().unwrap()), want);
        let out = std::process::Command::new("sh")
            .args(["-c", "(setsid cat /proc/self/status)"])
            .output()
            .expect("a program still starts");
        assert_eq!(lines(String::from_utf8(out.stdout).unwrap()), want, "after fork, exec and setsid");
    });
}

#[test]
fn a_tightening_filter_may_be_added_and_a_listener_not() {
    Child::new().run(|| {
        let filter = Filter::compile(native(), &[]).unwrap();
        filter.apply().unwrap();
        filter.apply().expect("a second filter only tightens");
        let number = numbers()["seccomp"];
        // SECCOMP_SET_MODE_FILTER with SECCOMP_FILTER_FLAG_NEW_LISTENER: refused before its pointer is looked at.
        assert_eq!(ask(None, number, [1, 8, 0, 0, 0, 0]), Probed::Errno(EPERM));
        assert_eq!(ask(None, number, [1, 0, 0, 0, 0, 0]), Probed::Errno(14), "control: EFAULT without the flag");
    });
}

#[test]
fn the_supervisor_s_filter_closes_what_it_lists_in_all_threads() {
    use stockade_confine::seccomp::supervisor_rows;
    let filter = Filter::compile_supervisor(native()).unwrap();
    let numbers = numbers();
    for row in supervisor_rows().unwrap() {
        for number in row.calls.iter().filter_map(|c| numbers.get(c.as_str())) {
            assert_eq!(ask(Some(&filter), *number, [u64::MAX; 6]), errno(row.action), "{number}");
        }
    }
    Child::new().run(move || {
        filter.apply().unwrap();
        let spawned = std::thread::spawn(|| std::process::Command::new("true").status().map_err(|e| e.raw_os_error()));
        assert_eq!(spawned.join().unwrap().unwrap_err(), Some(EPERM), "no program starts, in any thread");
    });
}
