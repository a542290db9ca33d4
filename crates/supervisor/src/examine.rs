//! What this machine can enforce, found out by doing it: a sandbox is built and a child sealed, but nothing is run.

use std::{fs::OpenOptions, os::fd::AsFd};

use stockade_confine::message::{Order, Report, Size, Spawn, Stdio, recv, send};
use stockade_types::LayerStatus;

use crate::{advice::Facts, boot::Prepared, config::Config, error::Error, running::COMMAND};

/// What a trial sandbox showed.
#[derive(Debug)]
pub struct Examination {
    /// Whether it was made as root, without a user namespace.
    pub root: bool,
    /// Every layer as the kernel reports it.
    pub layers: Vec<LayerStatus>,
    /// Remarks.
    pub notes: Vec<String>,
}

/// Builds a sandbox and seals a child in it. The child's program does not exist, so nothing runs. The caller must be
/// single-threaded.
///
/// # Errors
/// [`Error`]: why no sandbox can be built here.
pub fn examine(config: &Config) -> Result<Examination, Error> {
    let prepared = Prepared::new(config)?.with_every_limit();
    let root = prepared.is_root();
    let mut notes = prepared.outer().to_vec();
    let facts = Facts::look();
    let isolated = prepared.build().and_then(|building| building.ready()).map_err(|e| e.advised(&facts))?;
    let sandbox = &isolated.sandbox;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(Error::io("open /dev/null"))?;
    let nothing = Spawn {
        argv: vec![b"/stockade-doctor".to_vec()],
        env: Vec::new(),
        cwd: b"/".to_vec(),
        stdio: [Stdio::Given; 3],
        size: Size { rows: 24, cols: 80 },
    };
    send(&sandbox.channel, &Order::Spawn(COMMAND, nothing), &[null.as_fd(); 3]).map_err(Error::io("seal a child"))?;
    let mut layers = sandbox.layers.clone();
    loop {
        match recv::<Report>(&sandbox.channel).map_err(Error::io("hear from init"))? {
            Some((Report::Spawned(_, _, sealed), _)) => layers.extend(sealed),
            // As it should be: sealed, and then there was no such program.
            Some((Report::NotSpawned(..), _)) => break,
            Some(_) => {}
            None => return Err(Error::Lost),
        }
    }
    notes.extend_from_slice(&sandbox.notes);
    Ok(Examination { root, layers, notes })
}
