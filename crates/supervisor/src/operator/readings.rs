//! Numbers that are read when somebody asks for the metrics.

use std::{fs, io};

use stockade_ssh::{Numbers, limits};
use stockade_telemetry::{Kind, Reading};

use super::{Inner, Lookups, Ordering, Subjects};

/// Used descriptors, in hundredths of those that may be, from which on the sandbox is not ready.
const PRESSURE: u64 = 90;
/// Files of /proc that are read to count the sandbox's processes.
const LOOKED_AT: usize = 4096;

impl Inner {
    /// Everything that can be read now.
    pub(super) fn readings(&self) -> Vec<Reading> {
        let mut all = Vec::with_capacity(24);
        let gauge = |name, help, value: Option<f64>| value.map(|v| Reading::one(Kind::Gauge, name, help, v));
        let took = self.took.get().map(std::time::Duration::as_secs_f64);
        all.extend(gauge("start_seconds", "From the beginning to the command's start", took));
        let used = descriptors().ok().map(|n| n as f64);
        all.extend(gauge("descriptors", "Open descriptors of the supervisor", used));
        all.extend(gauge("descriptors_max", "Descriptors that it may open", Some(most() as f64)));
        all.extend(gauge("resident_bytes", "Memory of the supervisor", resident().map(|n| n as f64)));
        if let Some(counts) = self.traces.get().map(stockade_telemetry::Traces::counts) {
            let spans = (Kind::Counter, "spans", "Spans of traces, taken by the collector or dropped");
            let results = [("sent", counts.sent as f64), ("dropped", counts.dropped as f64)];
            all.push(Reading::by("result", spans, results));
        }
        if let Some(subjects) = self.subjects.get() {
            subjects.read(&mut all);
        }
        if let Some(ssh) = self.ssh.get() {
            came_in(&ssh.numbers(), &mut all);
        }
        all
    }
}

impl Subjects {
    fn read(&self, all: &mut Vec<Reading>) {
        let gauge = |name, help, value: f64| Reading::one(Kind::Gauge, name, help, value);
        let counter = |name, help, value: u64| Reading::one(Kind::Counter, name, help, value as f64);
        let (counts, minted) = (self.door.counts(), self.door.minted());
        all.extend(processes(self.init).map(|n| gauge("processes", "Processes inside, init besides", n as f64)));
        all.push(gauge("connections_open", "Connections open at the door", counts.active as f64));
        all.push(gauge("connections_max", "Connections that may be open at once", counts.places as f64));
        all.push(counter("connections_accepted", "Connections accepted at the door", counts.total));
        all.push(counter("refusals", "Refusals of connections and requests", counts.denied));
        all.push(counter("dns_questions", "Questions to the name server inside", counts.questions));
        let (out, back) = (counts.bodies.0 as f64, counts.bodies.1 as f64);
        let bodies = (Kind::Counter, "body_bytes", "Bytes of request bodies and of their answers'");
        all.push(Reading::by("direction", bodies, [("out", out), ("in", back)]));
        let Lookups { found, absent, failed } = &*self.lookups;
        let number = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed) as f64;
        let lookups = (Kind::Counter, "lookups", "Names looked up outside");
        let results = [("found", number(found)), ("absent", number(absent)), ("failed", number(failed))];
        all.push(Reading::by("result", lookups, results));
        let certificates = (Kind::Counter, "certificates", "Certificates for hosts that the command asked for");
        let results = [
            ("minted", minted.leaves as f64),
            ("kept", self.door.certificates_kept() as f64),
            ("refused", minted.refused as f64),
            ("failed", minted.failed as f64),
        ];
        all.push(Reading::by("result", certificates, results));
        let policy = self.policy.borrow().clone();
        let (hits, misses) = policy.remembered();
        let verdicts = (Kind::Counter, "verdicts", "Verdicts of the policy in force, found anew or remembered");
        all.push(Reading::by("source", verdicts, [("remembered", hits as f64), ("found", misses as f64)]));
        all.push(gauge("policy_generation", "Generation of the policy in force", policy.generation().0 as f64));
        all.push(counter(
            "audit_lost",
            "Audit events that could not be kept up with, or not be written",
            self.audit.lost(),
        ));
        let failing = if self.audit.failing() { 1.0 } else { 0.0 };
        all.push(gauge("audit_failing", "Whether the audit log cannot be written", failing));
    }
}

/// Who came in over SSH, and what for.
fn came_in(n: &Numbers, all: &mut Vec<Reading>) {
    let gauge = |name, help, value: f64| Reading::one(Kind::Gauge, name, help, value);
    all.push(gauge("ssh_connections_open", "SSH connections open", n.connections as f64));
    all.push(gauge("ssh_connections_max", "SSH connections that may be open at once", limits::CONNECTIONS as f64));
    let logins = (Kind::Counter, "ssh_logins", "SSH connections that came in, or why they did not");
    all.push(Reading::by("result", logins, number(n.logins)));
    let sessions = (Kind::Counter, "ssh_sessions", "Programs started over SSH");
    all.push(Reading::by("kind", sessions, number(n.sessions)));
    let open = (Kind::Gauge, "ssh_sessions_open", "Programs started over SSH that are not over");
    all.push(Reading::by("kind", open, number(n.sessions_open)));
    let forwards = (Kind::Counter, "ssh_forwards", "Connections to the sandbox's loopback asked for over SSH");
    all.push(Reading::by("result", forwards, number(n.forwards)));
    all.push(gauge("ssh_forwards_open", "Connections to the sandbox's loopback over SSH", n.forwards_open as f64));
    let refused = (Kind::Counter, "ssh_refusals", "Channels and requests refused to those who came in");
    all.push(Reading::by("what", refused, number(n.refused)));
}

fn number<const N: usize>(counts: [(&'static str, u64); N]) -> [(&'static str, f64); N] {
    counts.map(|(word, n)| (word, n as f64))
}

/// Descriptors in use. `/proc/self` is readable for its own process even when that is not dumpable.
fn descriptors() -> io::Result<u64> {
    // One of them is what this looks through.
    Ok((fs::read_dir("/proc/self/fd")?.count() as u64).saturating_sub(1))
}

fn most() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// What is wrong with the descriptors that are left.
pub(super) fn descriptor_pressure() -> Option<String> {
    judge(descriptors(), most())
}

fn judge(used: io::Result<u64>, most: u64) -> Option<String> {
    let way_out = "raise the limit of open files (ulimit -n, LimitNOFILE)";
    match used {
        Ok(used) if used.saturating_mul(100) / most.max(1) >= PRESSURE => {
            Some(format!("{used} of {most} descriptors are in use; {way_out}"))
        }
        Ok(_) => None,
        Err(e) => Some(format!("descriptors cannot be counted: {e}; {way_out}, or see that /proc is mounted")),
    }
}

fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes.saturating_mul(1024))
}

/// Descendants of init: everything in its pid namespace. `None` where the kernel does not list children.
fn processes(init: u32) -> Option<u64> {
    let mut waiting = vec![init];
    let (mut count, mut looked) = (0, 0);
    while let Some(pid) = waiting.pop() {
        // A process that has ended meanwhile has no children any more.
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            looked += 1;
            if looked > LOOKED_AT {
                return Some(count);
            }
            match fs::read_to_string(thread.path().join("children")) {
                Ok(children) => {
                    let children = children.split_whitespace().filter_map(|c| c.parse::<u32>().ok());
                    let before = waiting.len();
                    waiting.extend(children);
                    count += (waiting.len() - before) as u64;
                }
                Err(e) if pid == init && e.kind() == io::ErrorKind::NotFound => return None,
                Err(_) => {}
            }
        }
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_begins_where_nine_tenths_are_used() {
        assert_eq!(judge(Ok(10), 100), None);
        assert_eq!(judge(Ok(89), 100), None);
        assert!(judge(Ok(90), 100).unwrap().contains("90 of 100"));
        assert_eq!(judge(Ok(1 << 40), u64::MAX), None, "no limit");
        assert!(judge(Err(io::Error::from_raw_os_error(24)), 100).unwrap().contains("cannot be counted"));
    }

    #[test]
    fn children_of_children_are_counted() {
        let mut child = std::process::Command::new("sh").args(["-c", "sleep 60 & sleep 60 & wait"]).spawn().unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let mut seen = Some(0);
        while seen == Some(0) || seen == Some(1) {
            assert!(std::time::Instant::now() < until, "{seen:?}");
            seen = processes(child.id());
        }
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap_or_default();
        for pid in children.split_whitespace().filter_map(|p| p.parse().ok()).filter_map(rustix::process::Pid::from_raw)
        {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen.is_none() || seen == Some(2), "{seen:?}");
    }

    #[test]
    fn this_process_can_be_read() {
        assert!(descriptors().unwrap() >= 3);
        assert!(resident().unwrap() > 100_000);
        assert_eq!(descriptor_pressure(), None);
    }
}
