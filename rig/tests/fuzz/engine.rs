//! Tries a corpus and changed copies of it on one target.

use std::any::Any;
use std::fmt::Write;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::memory;
use crate::mutate;

/// How long a target is tried unless told otherwise.
const SECONDS: u64 = 2;
/// No input may take longer.
const INPUT_LIMIT: Duration = Duration::from_secs(1);
/// An input that takes as long never ends.
const ENDLESS: Duration = Duration::from_secs(30);
/// Whoever is slow this many times in a row is slow; once may be the host's
/// doing.
const SLOW_TIMES: usize = 3;

/// Tries all inputs of the corpus `name` and then changed ones; `check` panics
/// at what should not be, and may take so much memory.
///
/// # Panics
/// At the first input that breaks something. It is in the corpus then.
pub fn fuzz(name: &str, memory_max_bytes: usize, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let corpus = read(&folder);
    let watchdog = Watchdog::start(&folder);
    let try_it = |input: &[u8]| {
        watchdog.begin(input);
        one(&check, input, memory_max_bytes)
    };
    for (path, input) in &corpus {
        if let Err(why) = try_it(input) {
            panic!("{}: {why}\n{}", path.display(), again(name));
        }
    }
    let seeds: Vec<_> = corpus.into_iter().map(|(_, input)| input).collect();
    let (seed, limit) = (setting("NLRIG_FUZZ_SEED", 1), setting("NLRIG_FUZZ_SECONDS", SECONDS));
    let (start, mut index) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(limit) {
        let input = mutate::input(seed, index, &seeds);
        if let Err(why) = try_it(&input) {
            let kept = keep(&folder, &input);
            panic!("input {index} of seed {seed}: {why}\n{kept}\n{}", again(name));
        }
        index += 1;
    }
    println!("{name}: {} inputs of the corpus, {index} of seed {seed}", seeds.len());
}

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// All inputs of a corpus, in the order of their names.
fn read(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no input", folder.display());
    paths
        .into_iter()
        .map(|path| {
            let input = fs::read(&path).unwrap();
            (path, input)
        })
        .collect()
}

/// Tries one input.
fn one(check: &impl Fn(&[u8]), input: &[u8], memory_max_bytes: usize) -> Result<(), String> {
    let mut took = Duration::ZERO;
    for _ in 0..SLOW_TIMES {
        let start = Instant::now();
        let (outcome, peak) = memory::peak_of(|| catch_unwind(AssertUnwindSafe(|| check(input))));
        took = start.elapsed();
        outcome.map_err(|panic| message(&*panic))?;
        if peak > memory_max_bytes {
            return Err(format!("it takes {} KiB of memory", peak >> 10));
        }
        if took <= INPUT_LIMIT {
            return Ok(());
        }
    }
    Err(format!("it takes {:.1} s, every time", took.as_secs_f64()))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_string()
}

/// Writes an input into the corpus.
fn keep(folder: &Path, input: &[u8]) -> String {
    let mut name = String::from("found-");
    for byte in &Sha256::digest(input)[..6] {
        // Writing to a string does not fail.
        let _ = write!(name, "{byte:02x}");
    }
    let path = folder.join(name);
    match fs::write(&path, input) {
        Ok(()) => format!("kept as {}", path.display()),
        Err(err) => format!("{} cannot be written: {err}", path.display()),
    }
}

fn again(name: &str) -> String {
    format!("again: cargo test -p nlrig --test fuzz {name}")
}

/// Ends the process if an input never ends: no panic can.
struct Watchdog {
    current: Arc<Mutex<(Instant, Vec<u8>)>>,
    /// The thread ends with it.
    _alive: mpsc::Sender<()>,
}

impl Watchdog {
    fn start(folder: &Path) -> Watchdog {
        let current = Arc::new(Mutex::new((Instant::now(), Vec::new())));
        let (alive, ended) = mpsc::channel();
        let (watched, folder) = (Arc::clone(&current), folder.to_path_buf());
        std::thread::spawn(move || {
            while ended.recv_timeout(ENDLESS / 10) == Err(RecvTimeoutError::Timeout) {
                let (since, input) = &*watched.lock().unwrap();
                if since.elapsed() > ENDLESS {
                    eprintln!("an input does not end: {}", keep(&folder, input));
                    std::process::abort();
                }
            }
        });
        Watchdog { current, _alive: alive }
    }

    fn begin(&self, input: &[u8]) {
        let mut current = self.current.lock().unwrap();
        current.0 = Instant::now();
        current.1.clear();
        current.1.extend_from_slice(input);
    }
}
