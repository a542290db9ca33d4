//! Bounds on text that comes from inside the sandbox, applied before an event is queued.

use stockade_types::Enforcement;

use super::{Config, Event, Finding, Http, Lifecycle, Network, ProcessActivity, Ssh};

/// Longest text kept, in bytes.
pub(crate) const TEXT: usize = 1024;
/// Longest host kept: a name is at most 253, the rest is room for malformed ones.
const HOST: usize = 300;
/// Most processes above a caller.
const LINEAGE: usize = 16;
/// Most arguments kept, and their length in all.
const ARGS: usize = 64;
const ARGV: usize = 4096;
/// Most layers kept: there are ten.
const LAYERS: usize = 32;

impl Event {
    /// Cuts every text to its bound and marks the cut with `…`.
    pub(crate) fn bound(&mut self) {
        match self {
            Self::Network(e) => network(e),
            Self::Http(e) => http(e),
            Self::Ssh(e) => ssh(e),
            Self::Process(e) => process(e),
            Self::Config(Config { source, digest, detail, .. }) => {
                for text in [source, digest, detail] {
                    cut(text, TEXT);
                }
            }
            Self::Lifecycle(Lifecycle { layers, detail, .. }) => {
                layers.truncate(LAYERS);
                for status in layers {
                    if let Enforcement::Partial(why) | Enforcement::Absent(why) = &mut status.enforcement {
                        cut(why, TEXT);
                    }
                }
                cut(detail, TEXT);
            }
            Self::Finding(Finding { detail, .. }) => cut(detail, TEXT),
            Self::Log(_) => {}
        }
    }
}

fn network(e: &mut Network) {
    for (text, most) in [
        (&mut e.host, HOST),
        (&mut e.endpoint, HOST),
        (&mut e.rule, TEXT),
        (&mut e.detail, TEXT),
        (&mut e.suggestion, TEXT),
    ] {
        if let Some(text) = text {
            cut(text, most);
        }
    }
    if let Some(process) = &mut e.process {
        cut(&mut process.exe, TEXT);
        process.script.iter_mut().for_each(|script| cut(script, TEXT));
        process.ancestors.truncate(LINEAGE);
        process.ancestors.iter_mut().for_each(|exe| cut(exe, HOST));
    }
}

fn http(e: &mut Http) {
    network(&mut e.network);
    cut(&mut e.method, 64);
    cut(&mut e.path, TEXT);
}

fn ssh(e: &mut Ssh) {
    for text in [&mut e.peer, &mut e.user] {
        cut(text, HOST);
    }
    for text in [&mut e.key, &mut e.detail].into_iter().flatten() {
        cut(text, TEXT);
    }
    if let Some((host, _)) = &mut e.target {
        cut(host, HOST);
    }
}

fn process(e: &mut ProcessActivity) {
    let all = e.argv.len();
    let mut room = ARGV;
    let mut kept = 0;
    for arg in e.argv.iter_mut().take(ARGS) {
        if room == 0 {
            break;
        }
        cut(arg, room.min(TEXT));
        room = room.saturating_sub(arg.len());
        kept += 1;
    }
    e.argv.truncate(kept);
    if kept < all {
        e.argv.push(format!("… {} more", all - kept));
    }
}

fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
        text.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_bounded_in_number_and_length() {
        let argv: Vec<String> = (0..10_000).map(|_| "é".repeat(2000)).collect();
        let mut event = Event::Process(ProcessActivity { launched: true, pid: 1, argv, uid: 0, exit: None });
        event.bound();
        let Event::Process(p) = event else { panic!() };
        assert!(p.argv.iter().map(String::len).sum::<usize>() < ARGV + 100);
        assert_eq!(p.argv.last().map(String::as_str), Some("… 9996 more"));
    }

    #[test]
    fn short_text_is_left_alone() {
        let mut event = Event::Finding(Finding {
            reason: stockade_types::Reason::OuterWeak,
            severity: 2,
            detail: "x".repeat(TEXT),
            count: 1,
        });
        let before = event.clone();
        event.bound();
        assert_eq!(event, before);
    }
}
