//! SECC: system calls, as the command makes them.

use stockade_testkit::{Mode, Stockade, in_every_mode};

const EPERM: i32 = libc::EPERM;
const ENOSYS: i32 = libc::ENOSYS;

/// Makes each call that an argument names as `NUMBER,ARGUMENT,…`; `end` is the control. Perl hands on 64 bits.
const CALLER: &str = r#"
    $| = 1;
    for (@ARGV) {
        my ($number, @args) = map { $_ + 0 } split /,/;
        my $me = $$; $! = 0;
        my $got = syscall($number, @args);
        exit 0 if $$ != $me;
        print "$_ ", ($got < 0 ? $! + 0 : "done"), "\n";
    }
    print "end ", (-e "/proc/self" ? "yes" : "no"), "\n";"#;

/// The kernel's answer to each call: `done` or the error's number.
fn answers(stockade: Stockade, calls: &[String]) -> Vec<String> {
    let words = ["perl", "-e", CALLER].into_iter().map(str::to_owned).chain(calls.iter().cloned());
    let run = stockade.run(&words.collect::<Vec<_>>());
    let text = run.text();
    assert!(text.ends_with("end yes\n"), "control: {run:?}");
    let answer = |call: &String| text.lines().find_map(|l| l.strip_prefix(call.as_str())?.strip_prefix(' '));
    calls.iter().map(|c| answer(c).unwrap_or_else(|| panic!("no answer to {c}: {run:?}")).to_owned()).collect()
}

/// No argument here is one that a call could act on.
fn senseless(number: i64) -> String {
    format!("{number},-1,-1,-1,-1,-1,-1")
}

/// Calls with what the row wants of them, and the relaxation that lifts it.
fn table() -> Vec<(&'static str, i64, i32, &'static str)> {
    let mut table = vec![
        ("ptrace", libc::SYS_ptrace, EPERM, "ptrace"),
        ("process_vm_readv", libc::SYS_process_vm_readv, EPERM, "ptrace"),
        ("process_vm_writev", libc::SYS_process_vm_writev, EPERM, "ptrace"),
        ("kcmp", libc::SYS_kcmp, EPERM, "ptrace"),
        ("pidfd_getfd", 438, EPERM, "ptrace"),
        ("process_madvise", 440, EPERM, "ptrace"),
        ("bpf", libc::SYS_bpf, EPERM, "bpf"),
        ("perf_event_open", libc::SYS_perf_event_open, EPERM, "perf"),
        ("userfaultfd", libc::SYS_userfaultfd, EPERM, "userfaultfd"),
        ("io_uring_setup", 425, ENOSYS, "io_uring"),
        ("io_uring_enter", 426, ENOSYS, "io_uring"),
        ("io_uring_register", 427, ENOSYS, "io_uring"),
        ("add_key", libc::SYS_add_key, EPERM, "keyring"),
        ("request_key", libc::SYS_request_key, EPERM, "keyring"),
        ("keyctl", libc::SYS_keyctl, EPERM, "keyring"),
        ("mount", libc::SYS_mount, EPERM, "userns"),
        ("umount2", libc::SYS_umount2, EPERM, "userns"),
        ("pivot_root", libc::SYS_pivot_root, EPERM, "userns"),
        ("chroot", libc::SYS_chroot, EPERM, "userns"),
        ("setns", libc::SYS_setns, EPERM, "userns"),
        ("unshare", libc::SYS_unshare, EPERM, ""),
        ("open_tree", 428, EPERM, "userns"),
        ("move_mount", 429, EPERM, "userns"),
        ("fsopen", 430, EPERM, "userns"),
        ("fsconfig", 431, EPERM, "userns"),
        ("fsmount", 432, EPERM, "userns"),
        ("fspick", 433, EPERM, "userns"),
        ("mount_setattr", 442, EPERM, "userns"),
        ("open_tree_attr", 467, EPERM, "userns"),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, EPERM, ""),
        ("reboot", libc::SYS_reboot, EPERM, ""),
        ("kexec_load", libc::SYS_kexec_load, EPERM, ""),
        ("init_module", libc::SYS_init_module, EPERM, ""),
        ("finit_module", libc::SYS_finit_module, EPERM, ""),
        ("delete_module", libc::SYS_delete_module, EPERM, ""),
        ("swapon", libc::SYS_swapon, EPERM, ""),
        ("swapoff", libc::SYS_swapoff, EPERM, ""),
        ("acct", libc::SYS_acct, EPERM, ""),
        ("quotactl", libc::SYS_quotactl, EPERM, ""),
        ("fanotify_init", libc::SYS_fanotify_init, EPERM, ""),
        ("clone3", 435, ENOSYS, ""),
        ("lsm_set_self_attr", 460, EPERM, ""),
    ];
    #[cfg(target_arch = "x86_64")]
    table.extend([
        ("iopl", libc::SYS_iopl, EPERM, ""),
        ("ioperm", libc::SYS_ioperm, EPERM, ""),
        ("modify_ldt", libc::SYS_modify_ldt, ENOSYS, ""),
        ("kexec_file_load", libc::SYS_kexec_file_load, EPERM, ""),
    ]);
    table
}

/// SECC-01: every call of the row, from end to end. Without Stockade, and where the policy gives them back, the same
/// calls reach the kernel, which says something else.
#[test]
fn calls_that_no_program_needs_are_refused() {
    const RELAXED: &str = "version: 1\nprocess: {relax: [ptrace, userns, io_uring, keyring, perf, bpf, userfaultfd]}\n";
    let table = table();
    let calls: Vec<String> = table.iter().map(|(_, number, ..)| senseless(*number)).collect();
    let bare = answers(Stockade::new(Mode::Rootless).unwrapped(), &calls);
    for mode in Mode::available() {
        let strict = answers(Stockade::new(*mode), &calls);
        let relaxed = answers(Stockade::new(*mode).policy(RELAXED), &calls);
        let mut lifted = 0;
        for (at, (name, _, want, relax)) in table.iter().enumerate() {
            assert_eq!(strict[at], want.to_string(), "{mode:?} {name}");
            let now = &relaxed[at];
            if relax.is_empty() {
                assert_eq!(*now, want.to_string(), "no relaxation is about it: {mode:?} {name}");
            } else {
                lifted += usize::from(*now != strict[at]);
            }
        }
        assert!(
            lifted >= 12,
            "tripwire: {lifted} answers change when the policy gives the calls back: {mode:?} {relaxed:?}"
        );
        let other = (0..table.len()).filter(|at| bare[*at] != strict[*at]).count();
        assert!(other >= 20, "tripwire: without Stockade {other} answers are others: {bare:?}");
    }
}

/// SECC-03: the doors of other ABIs. The 64-bit program asks for `exit(42)` by `int 0x80`, and ends with 7 when that is
/// refused.
#[test]
#[cfg(target_arch = "x86_64")]
fn other_abis_are_closed() {
    use std::{fs, os::unix::fs::PermissionsExt};
    const X32: i64 = 0x4000_0000;
    let code: &[u8] = &[
        0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80, // mov eax, 1; mov ebx, 42; int 0x80
        0xb8, 60, 0, 0, 0, 0xbf, 7, 0, 0, 0, 0x0f, 0x05, // mov eax, 60; mov edi, 7; syscall
    ];
    let place = |s: Stockade| {
        let path = s.work().join("gate");
        fs::write(&path, program(code)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        s
    };
    let bare = place(Stockade::new(Mode::Rootless).unwrapped()).sh("./gate; echo code=$?").text();
    if !bare.contains("code=42\n") {
        stockade_testkit::skip!("this kernel has no 32-bit gate: {bare}");
    }
    let calls = [libc::SYS_getpid, libc::SYS_socket, libc::SYS_openat].map(|n| senseless(n | X32));
    for mode in Mode::available() {
        let run = place(Stockade::new(*mode)).sh("./gate; echo code=$?");
        // 128 + SIGSYS
        assert_eq!(run.text(), "code=159\n", "{mode:?} {run:?}");
        assert_eq!(answers(Stockade::new(*mode), &calls), [EPERM.to_string(), EPERM.to_string(), EPERM.to_string()]);
    }
    let bare = answers(Stockade::new(Mode::Rootless).unwrapped(), &calls);
    assert!(bare.iter().all(|a| *a != EPERM.to_string()), "tripwire: the kernel itself says otherwise: {bare:?}");
}

/// A static program of one page with this code.
#[cfg(target_arch = "x86_64")]
fn program(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |elf: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| elf.extend(v.to_le_bytes()));
    let word = |elf: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|v| elf.extend(v.to_le_bytes()));
    half(&mut elf, &[2, 62, 1, 0]); // an executable for x86-64, version 1
    word(&mut elf, &[BASE + HEADERS, 64, 0]); // entry, program headers, no sections
    half(&mut elf, &[0, 0, 64, 56, 1, 0, 0, 0]); // flags, sizes and counts
    half(&mut elf, &[1, 0, 5, 0]); // PT_LOAD, readable and executable
    let size = HEADERS + code.len() as u64;
    word(&mut elf, &[0, BASE, BASE, size, size, 0x1000]);
    elf.extend(code);
    elf
}

/// SECC-04: the kernel reads 32 bits of these arguments, so what stands in the others must not hide them.
#[test]
fn the_high_half_of_an_argument_hides_nothing() {
    const HIGH: i64 = 0x1_0000_0000;
    const NEWUSER: i64 = 0x1000_0000;
    // Descriptor 0 is a pipe: without the filter ENOTTY.
    let calls = [
        format!("{},0,{},0", libc::SYS_ioctl, HIGH | 0x5412),
        format!("{},0,{},0", libc::SYS_ioctl, HIGH | 0x541c),
        format!("{},0,{},0", libc::SYS_ioctl, HIGH | 0x5423),
        format!("{},{},3,12", libc::SYS_socket, HIGH | 16),
        format!("{},{},-1,-1,-1,-1", libc::SYS_prctl, HIGH | 35),
        format!("{},{},0,0,0,0", libc::SYS_clone, HIGH | NEWUSER | i64::from(libc::SIGCHLD)),
        format!("{},{}", libc::SYS_unshare, HIGH | NEWUSER),
    ];
    for mode in Mode::available() {
        let got = answers(Stockade::new(*mode), &calls);
        assert!(got.iter().all(|a| *a == EPERM.to_string()), "{mode:?} {got:?}");
    }
    let bare = answers(Stockade::new(Mode::Rootless).unwrapped(), &calls);
    let other = bare.iter().filter(|a| **a != EPERM.to_string()).count();
    assert!(other >= 4, "tripwire: without Stockade the kernel takes them: {bare:?}");
}

/// SECC-05: however a process comes to be.
#[test]
fn the_filter_is_in_every_thread_and_descendant() {
    let script = r#"
        look() { echo "$1 $(awk '/^(Seccomp|NoNewPrivs):/ {printf "%s", $2}' "${2:-/proc/self/status}")"; }
        export SHOW='/^(Seccomp|NoNewPrivs):/ {printf "%s", $2}'
        look shell /proc/$$/status; look program; (look fork); sh -c 'echo "exec $(awk "$SHOW" /proc/self/status)"'
        setsid sh -c '(sleep 0.1; echo "daemon $(awk "$SHOW" /proc/self/status)" > daemon) & exit 0' </dev/null >/dev/null 2>&1
        nohup sh -c 'echo "nohup $(awk "$SHOW" /proc/self/status)"' 2>/dev/null
        env -i PATH="$PATH" SHOW="$SHOW" sh -c 'echo "env $(awk "$SHOW" /proc/self/status)"'
        perl -e 'eval { require threads; threads->create(sub { open my $f, "<", "/proc/thread-self/status"; local $/; my $s = <$f>;
            print "thread ", $s =~ /^NoNewPrivs:\s*(\d)/m, $s =~ /^Seccomp:\s*(\d)/m, "\n" })->join; 1 } or print "thread none\n"'
        perl -e 'my $p = fork // die; if (!$p) { exec "sh", "-c", q(echo "vfork $(awk "$SHOW" /proc/self/status)") } waitpid $p, 0'
        while [ ! -s daemon ]; do sleep 0.02; done; cat daemon"#;
    let said = |text: &str| text.lines().map(|l| l.split_once(' ').unwrap().1.to_owned()).collect::<Vec<_>>();
    in_every_mode(
        |s| s,
        script,
        |mode, run| {
            let said = said(&run.text());
            assert_eq!(said.len(), 9, "control: each way leads to a process: {mode:?} {run:?}");
            // No new privileges, and a filter.
            assert!(said.iter().all(|s| s == "12" || s == "none"), "{mode:?} {run:?}");
        },
    );
    let bare = Stockade::new(Mode::Rootless).unwrapped().sh(script);
    assert!(said(&bare.text()).iter().all(|s| s != "12"), "tripwire: without Stockade they have neither: {bare:?}");
}

/// PROC-03: no process is another's to steer: not init, not the launcher, not a child of one's own.
#[test]
fn no_process_steers_another() {
    let script = format!(
        r#"my $text = "x" x 64; my $child = fork // die; if (!$child) {{ sleep 30; exit }}
        my $vector = pack("P", $text) . pack("J", 8); my ($hold) = $text;
        print "control ", (kill(0, $child) ? "yes" : "no"), "\n";
        for my $to ($child, 1, getppid) {{
            my $who = $to == $child ? "child" : "other";
            my $try = sub {{ my ($name, @call) = @_; $! = 0; my $got = syscall($call[0], @call[1..$#call]);
                print "$who $name ", ($got < 0 ? $! + 0 : "done"), "\n" }};
            $try->("kcmp", {kcmp}, $$ + 0, $to + 0, 1, 0, 0);
            $try->("readv", {readv}, $to + 0, $vector, 1, $vector, 1, 0);
            $try->("writev", {writev}, $to + 0, $vector, 1, $vector, 1, 0);
            my $handle = syscall({pidfd_open}, $to + 0, 0);
            $try->("getfd", {pidfd_getfd}, $handle, 0, 0);
            $try->("madvise", {madvise}, $handle, $vector, 1, 20, 0);
            $try->("seize", {ptrace}, 0x4206, $to + 0, 0, 0);
            $try->("attach", {ptrace}, 16, $to + 0, 0, 0);
        }}
        kill 9, $child;"#,
        kcmp = libc::SYS_kcmp,
        readv = libc::SYS_process_vm_readv,
        writev = libc::SYS_process_vm_writev,
        pidfd_open = 434,
        pidfd_getfd = 438,
        madvise = 440,
        ptrace = libc::SYS_ptrace,
    );
    let line = ["perl", "-e", &script];
    for mode in Mode::available() {
        let run = Stockade::new(*mode).run(&line);
        let text = run.text();
        assert!(text.starts_with("control yes\n"), "{mode:?} {run:?}");
        let tries: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(tries.len(), 21, "{mode:?} {run:?}");
        assert!(tries.iter().all(|t| t.ends_with(&format!(" {EPERM}"))), "{mode:?} {run:?}");
    }
    let bare = Stockade::new(Mode::Rootless).unwrapped().run(&line);
    let done: Vec<_> = ["kcmp", "readv", "getfd", "seize"]
        .into_iter()
        .filter(|name| bare.text().contains(&format!("child {name} done")))
        .collect();
    assert!(done.len() >= 3, "tripwire: without Stockade a child can be steered: {done:?} {bare:?}");
}
