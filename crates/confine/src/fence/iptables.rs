//! The fence in ip_tables and ip6_tables, for kernels without nf_tables.
//!
//! Two programs of the host write the rules, once, before the mount view exists: at a fixed path, owned by root, not
//! writable by others, with an empty environment. Afterwards nothing is run: the rules are read by system call.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::AsRawFd,
        unix::{fs::MetadataExt, process::CommandExt},
    },
    path::Path,
    process::{Command, Stdio},
};

use stockade_sys::socket::xtables::{Reader, Snapshot, Xtables};

use super::{
    Drift, FenceError, Mode, Spec,
    rules::{Action, Chain, Ip, Match, Rule, rules},
};

const DIRECTORIES: [&str; 2] = ["/usr/sbin", "/sbin"];
/// Ports that one `multiport` match takes.
const MULTIPORT: usize = 15;
/// Most bytes of a tool's output.
const OUTPUT: u64 = 1024 * 1024;
const TABLES: [&str; 2] = ["filter", "mangle"];
const HINT: &str = "load nf_tables, or install iptables (legacy) and its kernel modules; outside containers only";

/// The rules of both families, as they were when they had been compared with what was meant.
#[derive(Debug)]
pub(super) struct Tables(Vec<(Reader, Vec<(&'static str, Snapshot)>)>);

impl Tables {
    /// Writes the rules, compares what the tools read back with what was meant, and remembers it.
    pub(super) fn install(spec: &Spec, mode: Mode, v6: bool) -> Result<Self, FenceError> {
        let mut families = vec![Ip::V4];
        families.extend(v6.then_some(Ip::V6));
        let mut tables = Vec::new();
        for ip in families {
            let script = script(spec, mode, ip);
            Program::find(ip, "restore")?.run(&["-w", "5"], &script)?;
            compare(&script, &Program::find(ip, "save")?.run(&[], "")?)?;
            let reader = Reader::open(kind(ip)).map_err(|e| unavailable(format!("ip_tables socket ({e})")))?;
            let snapshots = TABLES.iter().map(|t| Ok((*t, reader.snapshot(t)?)));
            let snapshots: io::Result<_> = snapshots.collect();
            tables.push((reader, snapshots.map_err(|e| unavailable(format!("ip_tables ({e})")))?));
        }
        Ok(Self(tables))
    }

    pub(super) fn verify(&self) -> Result<(), Drift> {
        for (reader, snapshots) in &self.0 {
            for (table, then) in snapshots {
                let now = reader.snapshot(table).map_err(|e| Drift::Altered(format!("table `{table}` ({e})")))?;
                if now.rules != then.rules {
                    return Err(Drift::Altered(format!("table `{table}`")));
                }
            }
        }
        Ok(())
    }

    /// Packets that the chain `refuse` has counted: its first rule has no target and sees them all.
    pub(super) fn refused(&self, spec: &Spec, mode: Mode) -> Result<u64, FenceError> {
        let mut sum = 0;
        for (reader, _) in &self.0 {
            let filter = reader.snapshot("filter").map_err(|e| unavailable(format!("the fence's counter ({e})")))?;
            // From the end: the table's last entry, then the chain's return, then its rules.
            let rules = rules(spec, mode).iter().filter(|r| r.chain == Chain::Refuse).count();
            let at = filter.packets.len().checked_sub(rules + 2);
            sum += at.and_then(|at| filter.packets.get(at)).copied().unwrap_or_default();
        }
        Ok(sum)
    }
}

fn kind(ip: Ip) -> Xtables {
    match ip {
        Ip::V4 => Xtables::V4,
        Ip::V6 => Xtables::V6,
    }
}

fn unavailable(what: String) -> FenceError {
    FenceError::Unavailable { what, hint: HINT }
}

/// A program of the host that may be run.
#[derive(Debug)]
struct Program {
    file: File,
    name: String,
}

impl Program {
    /// Finds `iptables-legacy-restore` and its like, else the plain name, which is the same program on machines
    /// that have only one.
    fn find(ip: Ip, verb: &str) -> Result<Self, FenceError> {
        let family = match ip {
            Ip::V4 => "iptables",
            Ip::V6 => "ip6tables",
        };
        let names = [format!("{family}-legacy-{verb}"), format!("{family}-{verb}")];
        let paths = names.iter().flat_map(|n| DIRECTORIES.iter().map(move |d| (Path::new(d).join(n), n)));
        for (path, name) in paths {
            match File::open(&path) {
                Ok(file) => {
                    let meta = file.metadata().map_err(|e| unavailable(format!("{} ({e})", path.display())))?;
                    if !meta.is_file() || meta.uid() != 0 || meta.mode() & 0o022 != 0 {
                        let what = format!("{} (not a file of root's that others cannot write)", path.display());
                        return Err(unavailable(what));
                    }
                    return Ok(Self { file, name: name.clone() });
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(unavailable(format!("{} ({e})", path.display()))),
            }
        }
        Err(unavailable(format!("nf_tables is not available, and {family}-{verb}")))
    }

    /// Runs the very file that was checked. Its name tells the program which of its many it is to be.
    fn run(&self, args: &[&str], input: &str) -> Result<String, FenceError> {
        let failed = |e: io::Error| unavailable(format!("{} ({e})", self.name));
        let mut child = Command::new(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
            .arg0(&self.name)
            .args(args)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        // A program that ends early is judged by its exit status, not by the pipe it left.
        let written = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
        let (mut output, mut errors) = (String::new(), String::new());
        let read = |from: Option<&mut dyn Read>, to: &mut String| from.map(|f| f.take(OUTPUT).read_to_string(to));
        let read_output = read(child.stdout.as_mut().map(|s| s as &mut dyn Read), &mut output);
        let read_errors = read(child.stderr.as_mut().map(|s| s as &mut dyn Read), &mut errors);
        let status = child.wait().map_err(failed)?;
        if !status.success() {
            return Err(unavailable(format!("{} ({status}: {})", self.name, errors.trim())));
        }
        read_output.transpose().and(read_errors.transpose()).and(written.transpose()).map_err(failed)?;
        Ok(output)
    }
}

/// What `iptables-restore` reads, in the spelling of `iptables-save`, so that the two can be compared.
fn script(spec: &Spec, mode: Mode, ip: Ip) -> String {
    let rules = rules(spec, mode);
    let ports: Vec<u16> = spec.transparent_ports.iter().copied().collect();
    let lines = |prerouting: bool| {
        let of_table = rules.iter().filter(|r| (r.chain == Chain::Prerouting) == prerouting);
        of_table.flat_map(|r| spell(r, ip, &ports)).collect::<String>()
    };
    format!(
        "*mangle\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
         :POSTROUTING ACCEPT [0:0]\n{}COMMIT\n\
         *filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT DROP [0:0]\n:refuse - [0:0]\n{}COMMIT\n",
        lines(true),
        lines(false)
    )
}

/// A rule's lines in one family: none if it is of the other, several if its ports do not fit one line.
fn spell(rule: &Rule, ip: Ip, ports: &[u16]) -> Vec<String> {
    if rule.matches.iter().any(|m| matches!(m, Match::Family(f) if *f != ip)) {
        return Vec::new();
    }
    let chain = match rule.chain {
        Chain::Prerouting => "PREROUTING",
        Chain::Input => "INPUT",
        Chain::Forward => "FORWARD",
        Chain::Output => "OUTPUT",
        Chain::Refuse => "refuse",
    };
    let line = |ports: &[u16]| {
        let matches: String = rule.matches.iter().map(|m| condition(*m, ports)).collect();
        format!("-A {chain}{matches}{}\n", action(rule.action, ip))
    };
    if rule.matches.contains(&Match::ToTransparentPort) {
        ports.chunks(MULTIPORT).map(line).collect()
    } else {
        vec![line(&[])]
    }
}

fn loopback(ip: Ip) -> &'static str {
    match ip {
        Ip::V4 => "127.0.0.0/8",
        Ip::V6 => "::1/128",
    }
}

fn condition(condition: Match, ports: &[u16]) -> String {
    match condition {
        Match::Family(_) => String::new(),
        Match::InLo => " -i lo".to_owned(),
        Match::NotOutLo => " ! -o lo".to_owned(),
        Match::ToLoopback(ip) => format!(" -d {}", loopback(ip)),
        Match::NotToLoopback(ip) => format!(" ! -d {}", loopback(ip)),
        Match::FromLoopback(ip) => format!(" -s {}", loopback(ip)),
        Match::Tcp => " -p tcp".to_owned(),
        Match::ToPort(port) => format!(" -m tcp --dport {port}"),
        Match::ToTransparentPort => {
            let list: Vec<_> = ports.iter().map(u16::to_string).collect();
            format!(" -m multiport --dports {}", list.join(","))
        }
        Match::ResetFlag => " -m tcp --tcp-flags RST RST".to_owned(),
        Match::Rate { per_second, burst } => format!(" -m limit --limit {per_second}/sec --limit-burst {burst}"),
    }
}

fn action(action: Action, ip: Ip) -> String {
    match action {
        Action::Accept => " -j ACCEPT".to_owned(),
        Action::Refuse => " -g refuse".to_owned(),
        Action::Transparent(ip, port) => {
            let any = if ip == Ip::V4 { "0.0.0.0" } else { "::" };
            format!(" -j TPROXY --on-port {port} --on-ip {any} --tproxy-mark 0x0/0x0")
        }
        Action::Count => String::new(),
        Action::Log(group) => format!(" -j NFLOG --nflog-group {group} --nflog-size 128 --nflog-threshold 1"),
        Action::Reset => " -j REJECT --reject-with tcp-reset".to_owned(),
        Action::Unreachable if ip == Ip::V4 => " -j REJECT --reject-with icmp-port-unreachable".to_owned(),
        Action::Unreachable => " -j REJECT --reject-with icmp6-port-unreachable".to_owned(),
    }
}

/// Compares table by table: ours equal line by line but for counters, others without any rule.
fn compare(script: &str, saved: &str) -> Result<(), Drift> {
    let (meant, found) = (tables(script), tables(saved));
    for (name, lines) in &meant {
        if found.iter().find(|(n, _)| n == name).map(|(_, l)| l) != Some(lines) {
            return Err(Drift::Altered(format!("table `{name}`")));
        }
    }
    let bare = |lines: &[String]| lines.iter().all(|l| l.starts_with(':') && l.ends_with(" ACCEPT"));
    match found.iter().find(|(name, lines)| !meant.iter().any(|(n, _)| n == name) && !bare(lines)) {
        Some((name, _)) => Err(Drift::Foreign(format!("table `{name}`"))),
        None => Ok(()),
    }
}

fn tables(text: &str) -> Vec<(String, Vec<String>)> {
    let mut tables: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.lines().map(str::trim_end) {
        if let Some(name) = line.strip_prefix('*') {
            tables.push((name.to_owned(), Vec::new()));
        } else if let (Some((_, lines)), true) = (tables.last_mut(), line.starts_with([':', '-'])) {
            let counters = line.starts_with(':').then(|| line.rfind(" [")).flatten();
            lines.push(line[..counters.unwrap_or(line.len())].to_owned());
        }
    }
    tables
}

#[cfg(test)]
mod tests;
