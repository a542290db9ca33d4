//! HTTP-17: the whole corpus against every server that is installed.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use stockade_testkit::{
    Event, Events, Mode, Outer,
    outer::RESOLVER,
    skip,
    upstream::{Dns, https::Authority},
};

use crate::{
    corpus::Seen,
    frames,
    origins::{self, Origin, Saw},
    replay::{Door, Replay, cases, policy},
};

struct World {
    origins: Vec<Origin>,
    dns: Dns,
    ca: PathBuf,
}

impl World {
    fn start(outer: &Outer) -> Self {
        let (authority, ca) = (Authority::new(), outer.dir().join("ca.pem"));
        fs::write(&ca, authority.pem()).unwrap();
        Self { origins: origins::start(outer, &authority), dns: Dns::start((RESOLVER, 53)), ca }
    }

    fn host(&self, origin: &Origin, label: &str, domain: &str) -> String {
        let host = format!("{label}.{domain}.test");
        self.dns.host(&host, origin.addr);
        host
    }
}

/// A request as the audit log has it.
type Logged = (String, String);

/// The requests of the log, by host.
#[derive(Default)]
struct Log {
    /// Let through, and served.
    served: BTreeMap<String, Vec<Logged>>,
    /// Let through, whatever came of it.
    allowed: BTreeMap<String, Vec<Logged>>,
    /// All.
    all: BTreeMap<String, Vec<Logged>>,
    /// The same in words.
    words: BTreeMap<String, Vec<String>>,
}

impl Log {
    fn read(events: &Events) -> Self {
        let mut log = Self::default();
        for event in events.iter().filter(|e| e.class() == 4002) {
            let text = |pointer: &str| event.text(pointer).unwrap_or_default().to_owned();
            let (host, request) = (text("/dst_endpoint/hostname"), (text("/http_request/http_method"), path(event)));
            let status = event.0.pointer("/http_response/code").and_then(serde_json::Value::as_u64).unwrap_or(0);
            log.words.entry(host.clone()).or_default().push(text("/message"));
            let mut lists = vec![&mut log.all];
            // What failed was permitted before.
            if event.action() != Some("denied") {
                lists.push(&mut log.allowed);
            }
            // Nobody waited for the answer, or the origin found the request too odd to list it.
            if event.action() == Some("allowed") && !matches!(status, 0 | 400) {
                lists.push(&mut log.served);
            }
            for list in lists {
                list.entry(host.clone()).or_default().push(request.clone());
            }
        }
        log
    }

    /// What a list has for a host.
    fn of<'l>(list: &'l BTreeMap<String, Vec<Logged>>, host: &str) -> &'l [Logged] {
        list.get(host).map_or(&[][..], Vec::as_slice)
    }
}

fn path(event: &Event) -> String {
    event.text("/http_request/url/path").unwrap_or_default().to_owned()
}

fn as_logged(saw: &Saw) -> Logged {
    (saw.method.clone(), saw.target.split('?').next().unwrap_or_default().to_owned())
}

/// Of two lists the members that the second has not, each as often as it lacks it.
fn lacking<'l>(of: impl IntoIterator<Item = &'l Logged>, other: &[Logged]) -> Vec<&'l Logged> {
    let mut left: Vec<&Logged> = other.iter().collect();
    let mut lacks = |one: &&Logged| match left.iter().position(|other| other == one) {
        Some(at) => {
            left.swap_remove(at);
            false
        }
        None => true,
    };
    of.into_iter().filter(|one| lacks(one)).collect()
}

/// What arrived whole, as far as the origin tells, is what may arrive.
fn agree(saw: &[Saw], seen: &[Seen]) -> bool {
    let whole: Vec<_> = saw.iter().filter(|s| !s.broken).collect();
    let same = |(saw, (method, target, body)): (&&Saw, &Seen)| {
        saw.method == *method && saw.target == *target && saw.body.is_none_or(|n| n == *body)
    };
    whole.len() == seen.len() && whole.iter().zip(seen).all(same)
}

/// What does not agree.
fn differences(host: &str, saw: &[Saw], log: &Log, seen: Option<&[Seen]>) -> Vec<String> {
    let whole: Vec<_> = saw.iter().filter(|s| !s.broken).map(as_logged).collect();
    let arrived: Vec<_> = saw.iter().map(as_logged).collect();
    let mut found = Vec::new();
    if let Some(more) = lacking(&whole, Log::of(&log.allowed, host)).first() {
        found.push(format!("{host}: {more:?} arrived and was not authorised"));
    }
    if let Some(more) = lacking(&arrived, Log::of(&log.all, host)).first() {
        found.push(format!("{host}: {more:?} arrived in part and is not recorded"));
    }
    if let Some(more) = lacking(Log::of(&log.served, host), &arrived).first() {
        found.push(format!("{host}: {more:?} was authorised and did not arrive"));
    }
    if let Some(seen) = seen.filter(|seen| !agree(saw, seen)) {
        found.push(format!("{host}: {saw:?} arrived, wanted {seen:?}"));
    }
    if !found.is_empty() {
        found.push(format!("    recorded: {:?}", log.words.get(host)));
    }
    found
}

/// A case on its way: the origin, the host, and what may arrive of it.
type Wanted<'w> = (&'w Origin, String, Option<Vec<Seen>>);

/// The requests that origins see are the requests that were authorised, whatever the client sent and whoever reads it.
#[test]
fn origins_see_what_was_authorised() {
    Outer::run_within(Duration::from_secs(170), |outer| {
        let world = World::start(outer);
        // Not all at once: the door makes only so many certificates a second.
        for origins in world.origins.chunks(3) {
            let (mut replay, mut wanted) = (Replay::default(), Vec::<Wanted<'_>>::new());
            for origin in origins {
                let free = format!("free-{}", origin.name);
                for (door, tag) in [(Door::Tunnel, "t"), (Door::Proxy, "p")] {
                    let host = |name: &str| world.host(origin, &format!("{name}-{tag}"), origin.name);
                    replay.add_corpus(door, &host);
                    wanted.extend(cases(door).map(|c| (origin, host(c.name), Some(c.seen.to_vec()))));
                }
                let host = |name: &str| world.host(origin, name, origin.name);
                replay.add_frames(Door::Tunnel, &host);
                wanted.extend(frames::all(&host).into_iter().map(|c| (origin, host(c.name), c.seen)));
                // Where no rule looks at requests, more of them pass.
                let host = |name: &str| world.host(origin, name, &free);
                replay.add_corpus(Door::Direct, &host);
                wanted.extend(cases(Door::Direct).map(|c| (origin, host(c.name), None)));
            }
            let (_, events) = replay.inside(Mode::available()[0], &policy(origins), &world.ca);
            settle(origins, &wanted, &Log::read(&events));
            println!("{} connections to {:?}", wanted.len(), origins.iter().map(|o| o.name).collect::<Vec<_>>());
        }
    });
}

/// Waits until what origins list is what was recorded: a server may write its list a little later than its answer.
#[track_caller]
fn settle(origins: &[Origin], wanted: &[Wanted<'_>], log: &Log) {
    let began = Instant::now();
    loop {
        let mut found = Vec::new();
        for origin in origins {
            let hosts = origin.saw();
            let own = wanted.iter().filter(|(of, ..)| of.name == origin.name);
            for (_, host, seen) in own.clone() {
                let saw = hosts.get(host).map_or(&[][..], Vec::as_slice);
                found.extend(differences(host, saw, log, seen.as_deref()));
            }
            // A request for nobody that a case is about would be in no list.
            let known = |host: &String| own.clone().any(|(_, own, _)| own == host);
            for (host, saw) in hosts.iter().filter(|(host, _)| !known(host)) {
                // What an origin refuses before it reads for whom it is.
                if !(host.is_empty() && saw.iter().all(|s| s.broken)) {
                    found.push(format!("{}: for {host:?}: {saw:?}", origin.name));
                }
            }
        }
        if found.is_empty() {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(4), "{} differences:\n{}", found.len(), found.join("\n"));
        thread::sleep(Duration::from_millis(100));
    }
}

/// The tripwire: sent without the sandbox, bytes of every row reach a server as another request than they may, or one
/// too many.
#[test]
fn without_the_door_the_same_bytes_do_harm() {
    Outer::run_within(Duration::from_secs(100), |outer| {
        let world = World::start(outer);
        let mut replay = Replay::default();
        for origin in &world.origins {
            replay.add_corpus(Door::Direct, &|name| world.host(origin, name, origin.name));
        }
        if world.origins.len() < 4 {
            skip!("only {} servers are installed; a row's bytes may harm another", world.origins.len());
        }
        replay.outside(&world.ca);
        let saw: Vec<_> = world.origins.iter().map(|o| (o, o.saw())).collect();
        let mut harm = BTreeMap::<&str, usize>::new();
        for case in cases(Door::Direct).filter(|c| !c.row.is_empty()) {
            for (origin, saw) in &saw {
                let host = world.host(origin, case.name, origin.name);
                // A request that was hidden may have another Host, or none: it is missing then, and that shows.
                let came = saw.get(&host).map_or(&[][..], Vec::as_slice);
                *harm.entry(case.row).or_default() += usize::from(!agree(came, case.seen));
            }
        }
        println!("differences by row: {harm:?}");
        assert!(harm.values().all(|n| *n > 0), "a row whose bytes harm nobody tests nothing: {harm:?}");
    });
}
