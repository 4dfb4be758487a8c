//! The Rust target of the 32-bit guest programs: rustup's if it is there or can
//! be had soon, else the distribution's compiler.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Result, packages, root, say};

/// Static glibc: musl takes no thread's stack size from RLIMIT_STACK.
const TARGET: &str = "i686-unknown-linux-gnu";
/// rustup downloads some 30 MB; nothing promises that its server answers.
const DEADLINE: Duration = Duration::from_secs(120);
/// The distribution's library source, where build-std finds it.
const LIBRARY_SOURCE: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";

/// How long a refusal of rustup's is remembered, so that a machine without its
/// server does not wait for it at every start.
const REFUSAL_HOLDS: Duration = Duration::from_secs(24 * 60 * 60);

/// Sees that something can compile for the target. `rig doctor` says what.
pub fn ensure(fallback: &[String], yes: bool) -> Result<()> {
    let refusal = root().join("target/rustup-refused");
    if rustc_has_target() || (is_recent(&refusal) && Path::new(LIBRARY_SOURCE).is_file()) {
        return Ok(());
    }
    say(&format!("asking rustup for {TARGET}, {} s at most", DEADLINE.as_secs()));
    match rustup_add() {
        Ok(()) if rustc_has_target() => Ok(()),
        outcome => {
            let reason = outcome.err().unwrap_or_else(|| "it is still not there".to_string());
            say(&format!("rustup cannot help ({reason}): taking the distribution's compiler"));
            // Not remembered is asked again: no more than a loss of time.
            let _ = fs::write(&refusal, &reason);
            packages::ensure(fallback, yes)
        }
    }
}

fn is_recent(file: &Path) -> bool {
    fs::metadata(file)
        .and_then(|meta| meta.modified())
        .is_ok_and(|time| time.elapsed().is_ok_and(|age| age < REFUSAL_HOLDS))
}

fn rustc_has_target() -> bool {
    let out = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--print", "target-libdir", "--target", TARGET])
        .stderr(Stdio::null())
        .output();
    let Ok(out) = out else { return false };
    fs::read_dir(String::from_utf8_lossy(&out.stdout).trim()).is_ok_and(|files| {
        files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
    })
}

fn rustup_add() -> std::result::Result<(), String> {
    let mut child = Command::new("rustup")
        .args(["target", "add", TARGET])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // A few lines: they fit into the pipe until the end.
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|err| format!("rustup: {err}"))?;
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => {
                let mut words = String::new();
                if let Some(stderr) = &mut child.stderr {
                    let _ = stderr.read_to_string(&mut words);
                }
                let last = words.lines().rev().find(|line| !line.trim().is_empty());
                return Err(format!("{status}: {}", last.unwrap_or("no reason").trim()));
            }
            Ok(None) if start.elapsed() < DEADLINE => {
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("no answer within {} s", DEADLINE.as_secs()));
            }
            Err(err) => return Err(err.to_string()),
        }
    }
}
