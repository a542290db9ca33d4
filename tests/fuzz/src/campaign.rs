//! Runs one target on mutations of its corpus.

use std::{
    collections::HashSet,
    fs, io,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    process,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::{
    mutate::{Random, mutate},
    target::Target,
};

/// Inputs kept for behaving in a new way.
const MAX_KEPT: usize = 2048;
/// An input that takes longer hangs.
const HANG: Duration = Duration::from_secs(10);
/// Inputs between two looks at the clock.
const STRIDE: u64 = 64;

/// When a campaign ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After this time.
    Time(Duration),
    /// After this many inputs.
    Inputs(u64),
}

/// What a campaign did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Inputs run.
    pub inputs: u64,
    /// Different behaviours seen.
    pub behaviours: usize,
}

/// An input that breaks a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crash(pub Vec<u8>);

/// Where the corpora are.
#[must_use]
pub fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The inputs that a campaign begins with, in a fixed order.
///
/// # Errors
/// When the folder cannot be read.
pub fn corpus(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    let mut files: Vec<_> =
        fs::read_dir(corpora().join(target.name))?.map(|f| f.map(|f| f.path())).collect::<Result<_, _>>()?;
    files.sort();
    files.iter().map(fs::read).collect()
}

/// Runs the corpus as it is, then mutations of it and of what behaved in a new way.
///
/// # Errors
/// With the first input that panics.
pub fn run(target: &Target, corpus: Vec<Vec<u8>>, seed: u64, until: Until) -> Result<Done, Crash> {
    let begun = Instant::now();
    let watch = Watch::start(target.name);
    let mut random = Random::new(seed);
    let mut seen = HashSet::new();
    let mut kept = vec![Vec::new()];
    kept.extend(corpus);
    let mut inputs = 0;
    for input in &kept {
        seen.insert(one(target, &watch, input)?);
        inputs += 1;
    }
    loop {
        let over = match until {
            Until::Inputs(most) => inputs >= most,
            Until::Time(time) => inputs % STRIDE == 0 && begun.elapsed() >= time,
        };
        if over {
            return Ok(Done { inputs, behaviours: seen.len() });
        }
        let mut input = random.pick(&kept).cloned().unwrap_or_default();
        let other = random.pick(&kept).cloned().unwrap_or_default();
        mutate(&mut random, &mut input, &other, target.words);
        if seen.insert(one(target, &watch, &input)?) && kept.len() < MAX_KEPT {
            kept.push(input);
        }
        inputs += 1;
    }
}

fn one(target: &Target, watch: &Watch, input: &[u8]) -> Result<u64, Crash> {
    watch.set(Some(input));
    if watch.keep {
        // Says so rather than run an input that could not be saved.
        save_as(target.name, "last", input).map_err(|_| Crash(input.to_vec()))?;
    }
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    watch.set(None);
    outcome.map_err(|_| Crash(input.to_vec()))
}

/// Saves an input and says how to run it again.
///
/// # Errors
/// When it cannot be written.
pub fn save(target: &str, input: &[u8]) -> io::Result<PathBuf> {
    let number = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    save_as(target, &format!("{number:016x}"), input)
}

fn save_as(target: &str, name: &str, input: &[u8]) -> io::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crashes").join(target);
    fs::create_dir_all(&folder)?;
    let path = folder.join(name);
    fs::write(&path, input)?;
    Ok(path)
}

/// Ends the process, with the input saved, when one input takes too long.
struct Watch {
    current: Arc<Mutex<Current>>,
    /// Save each input before it runs: `STOCKADE_FUZZ_KEEP`, to find one that ends the process (stack overflow).
    keep: bool,
}

/// The input that runs, and since when.
type Current = Option<(Instant, Vec<u8>)>;

impl Watch {
    fn start(target: &'static str) -> Self {
        let current = Arc::new(Mutex::new(Current::None));
        let weak = Arc::downgrade(&current);
        thread::spawn(move || {
            while let Some(current) = weak.upgrade() {
                let guard = current.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((since, input)) = &*guard
                    && since.elapsed() > HANG
                {
                    eprintln!("{target}: an input took over {HANG:?}; saved: {:?}", save(target, input));
                    process::exit(1);
                }
                drop(guard);
                drop(current);
                thread::sleep(Duration::from_millis(200));
            }
        });
        Self { current, keep: std::env::var_os("STOCKADE_FUZZ_KEEP").is_some() }
    }

    fn set(&self, input: Option<&[u8]>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current = input.map(|i| (Instant::now(), i.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TARGETS;

    /// Enough to run every seed and some thousand neighbours, always the same ones.
    const INPUTS: u64 = 3000;

    fn smoke(name: &str) {
        let target = TARGETS.iter().find(|t| t.name == name).unwrap();
        let corpus = corpus(target).unwrap();
        assert!(!corpus.is_empty(), "{name} has no corpus");
        match run(target, corpus, 1, Until::Inputs(INPUTS)) {
            Ok(done) => assert!(done.behaviours > 1, "{name}: every input behaves the same"),
            Err(Crash(input)) => panic!("{name} fails on {:?}", String::from_utf8_lossy(&input)),
        }
    }

    macro_rules! smoke {
        ($($name:ident)*) => {
            $(#[test] fn $name() { smoke(stringify!($name)); })*

            #[test]
            fn every_target_has_a_test_and_every_corpus_a_target() {
                let tested = [$(stringify!($name)),*];
                let mut names: Vec<_> = TARGETS.iter().map(|t| t.name).collect();
                assert_eq!(names, tested);
                let mut folders: Vec<_> =
                    fs::read_dir(corpora()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
                names.sort_unstable();
                folders.sort();
                assert_eq!(names, folders);
            }
        };
    }

    smoke! { authority cidr escape audit_log client_hello sniff nflog channel policy head chunked request_target grpc graphql jsonrpc placeholder scrub mcp websocket sse dns_query ssh_keys ssh_handshake sftp }

    #[test]
    fn a_planted_fault_is_found_and_reported() {
        fn faulty(data: &[u8]) -> u64 {
            assert!(!data.windows(3).any(|w| w == b"bug"));
            u64::from(data.first() == Some(&b'b')) + u64::from(data.starts_with(b"bu")) * 2
        }
        let target = Target { name: "planted", run: faulty, words: &[b"bu", b"g"] };
        let hook = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        let found = run(&target, vec![b"a".to_vec()], 1, Until::Inputs(100_000));
        panic::set_hook(hook);
        let Err(Crash(input)) = found else { panic!("not found: {found:?}") };
        assert!(input.windows(3).any(|w| w == b"bug"));
    }
}
