use std::collections::BTreeSet;

use seccompiler::sock_filter;

use super::*;

const X86: u32 = 0xc000_003e;
const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;

fn errno(n: u32) -> u32 {
    0x0005_0000 | n
}

/// What the kernel does with a program: enough of classic BPF for what the assembler emits.
fn interpret(program: &[sock_filter], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
    let word = |k: u32| match k {
        0 => nr,
        4 => arch,
        k => {
            let at = (k - 16) as usize;
            (args[at / 8] >> (8 * (at % 8))) as u32
        }
    };
    let (mut a, mut pc) = (0_u32, 0_usize);
    loop {
        let i = &program[pc];
        pc += 1;
        let holds = match i.code {
            0x20 => {
                a = word(i.k);
                continue;
            }
            0x54 => {
                a &= i.k;
                continue;
            }
            0x06 => return i.k,
            0x15 => a == i.k,
            0x25 => a > i.k,
            0x35 => a >= i.k,
            0x45 => a & i.k != 0,
            other => panic!("instruction {other:#x}"),
        };
        pc += usize::from(if holds { i.jt } else { i.jf });
    }
}

fn x86(name: &str, args: [u64; 6]) -> u32 {
    relaxed(&[], name, args)
}

fn relaxed(relax: &[&str], name: &str, args: [u64; 6]) -> u32 {
    let filter = Filter::compile(Arch::X86_64, relax).unwrap();
    let nr = table::number(name, Arch::X86_64).unwrap().unwrap();
    interpret(&filter.program, X86, nr.into(), args)
}

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const EPROTONOSUPPORT: u32 = 93;
const EAFNOSUPPORT: u32 = 97;

#[test]
fn both_architectures_compile_and_fit_the_kernel() {
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let filter = Filter::compile(arch, &[]).unwrap();
        assert!((50..4096).contains(&filter.len()), "{arch:?}: {}", filter.len());
        assert!(!Filter::compile_supervisor(arch).unwrap().is_empty());
    }
}

#[test]
fn foreign_architectures_die_and_x32_is_refused() {
    let filter = Filter::compile(Arch::X86_64, &[]).unwrap();
    // i386 (int 0x80) and aarch64.
    for arch in [0x4000_0003, 0xc000_00b7] {
        assert_eq!(interpret(&filter.program, arch, 39, [0; 6]), KILL);
    }
    assert_eq!(interpret(&filter.program, X86, 0x4000_0000 | 39, [0; 6]), errno(EPERM));
    assert_eq!(interpret(&filter.program, X86, u32::MAX, [0; 6]), errno(ENOSYS));
    let arm = Filter::compile(Arch::Aarch64, &[]).unwrap();
    assert_eq!(interpret(&arm.program, 0x4000_0028, 20, [0; 6]), KILL, "32-bit Arm");
}

#[test]
fn every_number_is_a_known_call_or_enosys() {
    for (arch, audit) in [(Arch::X86_64, X86), (Arch::Aarch64, 0xc000_00b7)] {
        let filter = Filter::compile(arch, &[]).unwrap();
        let known: BTreeSet<u32> = table::calls(arch).map(|(_, n)| n.into()).collect();
        for nr in 0..u32::from(table::CEILING) + 64 {
            let got = interpret(&filter.program, audit, nr, [0; 6]);
            assert!(known.contains(&nr) || got == errno(ENOSYS), "{arch:?} {nr}: {got:#x}");
        }
    }
}

#[test]
fn unconditional_rows_answer_what_they_say_on_both_architectures() {
    for (arch, audit) in [(Arch::X86_64, X86), (Arch::Aarch64, 0xc000_00b7)] {
        let filter = Filter::compile(arch, &[]).unwrap();
        for row in rows().unwrap().iter().filter(|r| r.when.is_empty()) {
            let want = match row.action {
                Action::EPERM => errno(EPERM),
                Action::ENOSYS => errno(ENOSYS),
                other => panic!("{other:?} without a condition"),
            };
            for call in &row.calls {
                let Some(nr) = table::number(call, arch).unwrap() else { continue };
                assert_eq!(interpret(&filter.program, audit, nr.into(), [0; 6]), want, "{arch:?} {call}");
            }
        }
    }
}

#[test]
fn ordinary_calls_pass() {
    for name in ["read", "openat", "execve", "mmap", "futex", "memfd_create", "landlock_restrict_self", "close_range"] {
        assert_eq!(x86(name, [0; 6]), ALLOW, "{name}");
    }
    assert_eq!(x86("clone", [0x003d_0f00, 0, 0, 0, 0, 0]), ALLOW, "pthread_create");
    assert_eq!(x86("clone", [0x0120_0011, 0, 0, 0, 0, 0]), ALLOW, "fork");
    assert_eq!(x86("clone", [0x4111, 0, 0, 0, 0, 0]), ALLOW, "vfork");
    assert_eq!(x86("prctl", [38, 1, 0, 0, 0, 0]), ALLOW, "PR_SET_NO_NEW_PRIVS");
    assert_eq!(x86("seccomp", [1, 0, 0, 0, 0, 0]), ALLOW, "a filter that tightens");
    assert_eq!(x86("personality", [0xffff_ffff, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(x86("prlimit64", [0, 7, 0x7fff_0000_0000, 0, 0, 0]), ALLOW, "own limits");
    assert_eq!(x86("prlimit64", [5, 7, 0, 0x7fff_0000_0000, 0, 0]), ALLOW, "reading another's");
}

#[test]
fn sockets_are_an_allow_list() {
    let socket = |family, kind, protocol| x86("socket", [family, kind, protocol, 0, 0, 0]);
    for (family, kind, protocol) in
        [(1, 1, 0), (1, 5, 0), (2, 1, 6), (2, 2, 17), (2, 0x0008_0001, 0), (10, 0x801, 0), (16, 0x0008_0003, 0)]
    {
        assert_eq!(socket(family, kind, protocol), ALLOW, "{family} {kind:#x} {protocol}");
    }
    for family in [0, 3, 15, 17, 21, 29, 30, 31, 33, 38, 40, 42, 43, 44, 255] {
        assert_eq!(socket(family, 2, 0), errno(EAFNOSUPPORT), "{family}");
    }
    for kind in [3, 10, 5, 6, 4, 0x0008_0003] {
        assert_eq!(socket(2, kind, 0), errno(EPERM), "{kind:#x}");
        assert_eq!(socket(10, kind, 0), errno(EPERM), "{kind:#x}");
    }
    for protocol in [1, 58] {
        assert_eq!(socket(2, 2, protocol), errno(EPERM), "{protocol}");
    }
    for protocol in [33, 132, 136, 256, 262] {
        assert_eq!(socket(2, 1, protocol), errno(EPROTONOSUPPORT), "{protocol}");
    }
    for protocol in [4, 6, 9, 12, 15, 16] {
        assert_eq!(socket(16, 3, protocol), errno(EPERM), "netlink {protocol}");
    }
    assert_eq!(socket(0x1_0000_0002, 3, 0), errno(EPERM), "the kernel ignores the high half, and so does the row");
    assert_eq!(socket(0x1_0000_0011, 3, 0), errno(EAFNOSUPPORT));
}

#[test]
fn flags_are_compared_on_the_low_half() {
    const HIGH: u64 = 0x1_0000_0000;
    assert_eq!(x86("ioctl", [0, HIGH | 0x5412, 0, 0, 0, 0]), errno(EPERM));
    assert_eq!(x86("ioctl", [0, 0x541c, 0, 0, 0, 0]), errno(EPERM));
    assert_eq!(x86("ioctl", [0, 0x5413, 0, 0, 0, 0]), ALLOW, "TIOCGWINSZ");
    for ns in [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
        assert_eq!(x86("clone", [HIGH | ns | 17, 0, 0, 0, 0, 0]), errno(EPERM), "{ns:#x}");
        assert_eq!(x86("unshare", [HIGH | ns, 0, 0, 0, 0, 0]), errno(EPERM), "{ns:#x}");
    }
    assert_eq!(x86("unshare", [0x80, 0, 0, 0, 0, 0]), errno(EPERM), "time namespace");
    assert_eq!(x86("unshare", [0x400, 0, 0, 0, 0, 0]), errno(EPERM), "CLONE_FILES");
    assert_eq!(x86("unshare", [0x200, 0, 0, 0, 0, 0]), ALLOW, "CLONE_FS");
    assert_eq!(x86("clone", [0x0001_0900, 0, 0, 0, 0, 0]), errno(EPERM), "thread without CLONE_FILES");
    assert_eq!(x86("close_range", [3, 9, 2, 0, 0, 0]), errno(EPERM));
    assert_eq!(x86("close_range", [3, 9, 4, 0, 0, 0]), ALLOW);
    assert_eq!(x86("prlimit64", [5, 7, HIGH, 0, 0, 0]), errno(EPERM), "a pointer counts with both halves");
    assert_eq!(x86("memfd_create", [0, 0x11, 0, 0, 0, 0]), errno(EPERM));
    assert_eq!(x86("seccomp", [1, 8, 0, 0, 0, 0]), errno(EPERM));
}

#[test]
fn a_relaxation_lifts_its_rows_and_no_other() {
    assert_eq!(x86("ptrace", [0; 6]), errno(EPERM));
    assert_eq!(relaxed(&["ptrace"], "ptrace", [0; 6]), ALLOW);
    assert_eq!(relaxed(&["ptrace"], "mount", [0; 6]), errno(EPERM));
    assert_eq!(relaxed(&["userns"], "unshare", [0x1000_0000, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(relaxed(&["userns"], "unshare", [0x400, 0, 0, 0, 0, 0]), errno(EPERM), "CLONE_FILES stays closed");
    let filter = Filter::compile(Arch::X86_64, &["io_uring", "personality"]).unwrap();
    assert_eq!(filter.relaxed().len(), 2);
    assert!(!filter.identity_is_evidence());
    assert!(Filter::compile(Arch::X86_64, &["personality"]).unwrap().identity_is_evidence());
}

#[test]
fn the_policy_s_words_are_the_rows_words() {
    let ours: BTreeSet<String> = relaxations(&rows().unwrap()).into_iter().map(|r| r.name).collect();
    let policy = stockade_policy::Relaxation::ALL.iter().map(|r| r.name().to_owned()).collect();
    assert_eq!(ours, policy);
}

#[test]
fn an_unknown_relaxation_names_the_known_ones() {
    let e = Filter::compile(Arch::X86_64, &["everything"]).unwrap_err().to_string();
    assert!(e.contains("`everything`") && e.contains("ptrace") && e.contains("userns"), "{e}");
}

#[test]
fn the_table_is_sorted_and_unique() {
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let all: Vec<_> = table::calls(arch).collect();
        assert!(all.windows(2).all(|w| w[0].0 < w[1].0), "sorted by name: the search depends on it");
        assert_eq!(all.iter().map(|c| c.1).collect::<BTreeSet<_>>().len(), all.len(), "{arch:?}");
        assert_eq!(all.iter().map(|c| c.1).max(), Some(table::CEILING));
    }
}

#[test]
fn a_bad_row_is_an_error_that_names_it() {
    let head = "[[row]]\ncalls = [\"mount\"]\naction = \"EPERM\"\n";
    for (text, want) in [
        (format!("{head}reason = \"\""), "no reason"),
        (format!("{head}reason = \"r\"\nwhy = 1"), "unknown field `why`"),
        (format!("{head}reason = \"r\"\nwhen = [{{ arg = 6, eq = 1 }}]"), "arguments 0 to 5"),
        (format!("{head}reason = \"r\"\nwhen = [{{ arg = 0 }}]"), "exactly one of"),
        (format!("{head}reason = \"r\"\nwhen = [{{ arg = 0, eq = 0x1_0000_0000 }}]"), "wide"),
        (format!("{head}reason = \"r\"\nwhen = [{{ arg = 0, wide = true, any = 1 }}]"), "exactly one of"),
        ("[[row]]\ncalls = []\naction = \"EPERM\"\nreason = \"r\"".to_owned(), "no calls"),
        ("[[row]]\ncalls = [\"mount\"]\naction = \"EPIPE\"\nreason = \"r\"".to_owned(), "EPIPE"),
    ] {
        let e = rules::parse("x.toml", &text).unwrap_err().to_string();
        assert!(e.contains(want) && e.contains("x.toml"), "{want}: {e}");
    }
    let rows = rules::parse("x.toml", &format!("{head}reason = \"r\"").replace("mount", "mont")).unwrap();
    let e = assemble::program(Arch::X86_64, rows.iter()).unwrap_err().to_string();
    assert!(e.contains("`mont`"), "{e}");
}
