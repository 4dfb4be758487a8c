//! Endurance tests: many boots in one run, and runs killed at random moments, leave
//! nothing behind and damage nothing. Ignored by default.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use nlrig::cache::{Cache, KINDS};
use serde_json::Value;

use crate::common::soon;
use crate::exec::{Outcome, check};

const REPETITIONS: usize = 200;
const KILLS: u64 = 60;
/// The latest moment of a kill, in milliseconds after the start. Until then a run
/// builds a module, makes an image or boots a VM.
const KILL_WITHIN_MS: u64 = 6000;

pub fn tests() -> Vec<Trial> {
    let mut tests = Vec::new();
    for abi in ["i386", "x86_64"] {
        tests.push(Trial::test(format!("endurance/{abi}/boots"), move || boots(abi)));
    }
    tests.push(Trial::test("endurance/killed-at-random", killed_at_random));
    tests.into_iter().map(|test| test.with_ignored_flag(true)).collect()
}

fn boots(abi: &str) -> Outcome {
    let dir = tempfile::tempdir()?;
    let report = dir.path().join("report.json");
    let temporary = dir.path().join("tmp");
    fs::create_dir(&temporary)?;
    let child = Command::new(env!("CARGO_BIN_EXE_nlrig"))
        .args(["run", "smoke", "--abi", abi, "--repeat", &REPETITIONS.to_string()])
        .arg("--out")
        .arg(dir.path().join("out"))
        .arg("--json")
        .arg(&report)
        .env("TMPDIR", &temporary)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let id = child.id();
    let watcher = std::thread::spawn(move || most_descriptors(id));
    let output = child.wait_with_output()?;
    let (early, late) = watcher.join().expect("the watcher does not panic");
    check("all pass", output.status.success(), &output)?;
    assert!(late <= early, "{late} descriptors at the end, {early} at the beginning");
    assert_eq!(fs::read_dir(&temporary)?.count(), 0, "no temporary folder is left");
    let report: Value = serde_json::from_slice(&fs::read(report)?)?;
    let trials = report["trials"].as_array().ok_or("the report has trials")?;
    assert_eq!(trials.len(), REPETITIONS);
    for trial in trials {
        assert_eq!(
            (trial["verdict"].as_str(), trial["attempts"].as_u64()),
            (Some("pass"), Some(1))
        );
    }
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("median"), "no distribution: {table}");
    // For the log of the nightly tier.
    eprintln!("{table}");
    Ok(())
}

/// Returns the peak of open descriptors of a process in its first and its last
/// minute.
fn most_descriptors(id: u32) -> (usize, usize) {
    let mut counts = Vec::new();
    while let Ok(entries) = fs::read_dir(format!("/proc/{id}/fd")) {
        counts.push(entries.count());
        std::thread::sleep(Duration::from_millis(100));
    }
    let most = |counts: &[usize]| counts.iter().copied().max().unwrap_or(0);
    let minute = counts.len().min(600);
    (most(&counts[..minute]), most(&counts[counts.len() - minute..]))
}

/// Fills a cache with links to the slow entries and the locks of the user's cache.
fn own_cache(dir: &Path) -> Result<(), Failed> {
    let cache = Cache::open()?;
    for kind in KINDS.into_iter().filter(|kind| !OWN.contains(kind)).chain(["lock"]) {
        fs::create_dir_all(cache.root().join(kind))?;
        symlink(cache.root().join(kind), dir.join(kind))?;
    }
    Ok(())
}

/// The kinds of entries that each killed run builds itself.
const OWN: [&str; 2] = ["module", "image"];

fn killed_at_random() -> Outcome {
    let dir = tempfile::tempdir()?;
    for name in ["cache", "tmp"] {
        fs::create_dir(dir.path().join(name))?;
    }
    own_cache(&dir.path().join("cache"))?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let run = || -> Result<Child, Failed> {
        Ok(Command::new(env!("CARGO_BIN_EXE_nlrig"))
            .args(["run", "smoke", "--abi", "x86_64", "--out"])
            .arg(dir.path().join("out"))
            .env("TMPDIR", dir.path().join("tmp"))
            .env("NLRIG_CACHE", dir.path().join("cache"))
            .env(MARK, dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?)
    };
    for number in 0..KILLS {
        let mut child = run()?;
        let moment = RandomState::new().hash_one(number) % KILL_WITHIN_MS;
        std::thread::sleep(Duration::from_millis(moment));
        child.kill()?;
        child.wait()?;
        gone_soon(dir.path())?;
        // Every fourth time the next run must build again.
        if number % 4 == 0 {
            for kind in OWN {
                let _ = fs::remove_dir_all(dir.path().join("cache").join(kind));
            }
        }
    }
    let output = run()?.wait_with_output()?;
    check("the next run works", output.status.success(), &output)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    check("no cache entry is damaged", !stderr.contains("damaged"), &output)?;
    let left = fs::read_dir(dir.path().join("tmp"))?.count();
    check("no temporary folder is left", left == 0, &output)?;
    check("no mount is left", fs::read_to_string("/proc/self/mounts")? == mounts, &output)
}

/// The environment variable that marks all processes of these runs.
const MARK: &str = "NLRIG_TEST_MARK";

/// Waits until no process has the mark.
fn gone_soon(mark: &Path) -> Outcome {
    if soon(Duration::from_secs(10), || marked(mark).is_empty()) {
        return Ok(());
    }
    Err(format!("still alive after 10 s: {:?}", marked(mark)).into())
}

/// Returns the command lines of all processes that have the mark.
fn marked(mark: &Path) -> Vec<String> {
    let mark = format!("{MARK}={}", mark.display());
    let has_it = |process: &PathBuf| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|word| word == mark.as_bytes())
    };
    let processes = fs::read_dir("/proc").expect("/proc is mounted");
    processes
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(has_it)
        .filter_map(|process| fs::read_to_string(process.join("cmdline")).ok())
        .collect()
}
