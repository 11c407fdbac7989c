//! What the engine takes without a model: measured.
//!
//! A process of its own serves a model of one layer with next to no weights
//! beside the tokenizer at hand, and says how much memory it has resident. What
//! its weights take is subtracted. The tokenizer decides most of the rest, so
//! the result is kept by it, and by this program and machine.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use router_stats::atomic;
use router_stats::family::Topology;
use serde::{Deserialize, Serialize};

use crate::cache::{self, Cache, Key};
use crate::pipeline::{Model, Reporter};
use crate::surgery;
use crate::{Error, Result};

/// What the engine takes without a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overhead {
    /// Bytes of the program's file that are mapped.
    pub program: u64,
    /// Bytes of tokenizer, runtime and threads.
    pub engine: u64,
}

/// One part in so many is added to the program's pages, for code that the
/// measurement does not reach: blocks of every type, streams, failures.
const UNREACHED: u64 = 10;

/// The verb that measures.
pub(crate) const VERB: &str = "overhead";

/// What the allocator is told in a process that serves with a budget of
/// memory: one pool for all
/// threads, and large blocks given back at once, so that what is resident is
/// what is in use. Variables that the user has set stay as they are.
pub const ALLOCATOR: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_MMAP_THRESHOLD_", "131072"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
];

/// Applies [`ALLOCATOR`] to a command.
pub fn with_allocator(command: &mut Command) -> &mut Command {
    for (name, value) in ALLOCATOR {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    command
}

/// Of the engine beside the tokenizer of `model`, from the cache or measured
/// now.
///
/// # Errors
/// If the system does not say what is resident, or the process fails.
pub fn measured(model: &Model, cache: &Cache, reporter: &dyn Reporter) -> Result<Overhead> {
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let file = std::fs::metadata(&program).map_err(router_stats::Error::io(&program))?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let key = Key::new("overhead")
        .with(&model.companions)
        .with(&format!(
            "{} {} {:?} {threads}",
            model.topology().vocab,
            file.len(),
            file.modified().ok(),
        ))
        .finish();
    let path = cache.root().join("overheads").join(format!("{key}.json"));
    let _lock = cache.lock(&key, reporter)?;
    if let Some(overhead) = cache::read_json(&path) {
        return Ok(overhead);
    }
    // As much of the program as is in the system's cache is mapped around every
    // page that is needed: all of it, on a machine where it is in use.
    let mut file = std::fs::File::open(&program).map_err(router_stats::Error::io(&program))?;
    std::io::copy(&mut file, &mut std::io::sink()).map_err(router_stats::Error::io(&program))?;
    let written = tempfile::tempdir().map_err(router_stats::Error::io(cache.root()))?;
    let dir = match model.checkpoint().gguf() {
        None => model.checkpoint().dir(),
        Some(_) => {
            surgery::write_companions(model.checkpoint(), written.path())?;
            written.path()
        }
    };
    let mut overhead = measure(&program, dir, model.topology(), cache)?;
    overhead.program += overhead.program / UNREACHED;
    let json = serde_json::to_vec(&overhead).map_err(Error::Serialize)?;
    cache::make_parent(&path)?;
    atomic::write(&path, |file| file.write_all(&json))?;
    Ok(overhead)
}

fn measure(program: &Path, dir: &Path, topology: &Topology, cache: &Cache) -> Result<Overhead> {
    let mut command = Command::new(program);
    command
        .args([VERB, "--quiet", "--cache-dir"])
        .arg(cache.root());
    command.args(["--vocabulary", &topology.vocab.to_string()]);
    command.arg(dir).stdin(Stdio::null());
    let output = with_allocator(&mut command).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().trim_start_matches("error: ");
        let reason = said.lines().next().unwrap_or("no answer");
        return Err(failed(reason.to_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}

fn failed(reason: String) -> Error {
    Error::Engine {
        what: "measuring the engine's own memory",
        reason,
    }
}
