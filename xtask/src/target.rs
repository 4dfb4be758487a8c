//! Installs the Rust target of the 32-bit guest programs: with rustup, else from
//! the distribution's packages.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Result, packages, root, say};

/// The target, for static glibc: musl ignores RLIMIT_STACK for thread stacks.
const TARGET: &str = "i686-unknown-linux-gnu";
/// The time limit of rustup, which downloads about 30 MB from a server that may be
/// unreachable.
const DEADLINE: Duration = Duration::from_secs(120);
/// The distribution's source of the standard library, for build-std.
const LIBRARY_SOURCE: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";

/// The time for which a failure of rustup is cached, so that a host that cannot
/// reach its server does not wait at every start.
const FAILURE_VALID: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes sure that a compiler for the target is installed; `doctor` shows which.
pub fn ensure(fallback: &[String], yes: bool) -> Result<()> {
    let failure = root().join("target/rustup-failed");
    if rustc_has_target() || (is_recent(&failure) && Path::new(LIBRARY_SOURCE).is_file()) {
        return Ok(());
    }
    say(&format!("rustup target add {TARGET}: waiting up to {} s", DEADLINE.as_secs()));
    match rustup_add() {
        Ok(()) if rustc_has_target() => Ok(()),
        outcome => {
            let missing = || "the target is still missing".to_string();
            let reason = outcome.err().unwrap_or_else(missing);
            say(&format!("rustup failed ({reason}); using the distribution's compiler"));
            // If this fails, the next start tries rustup again.
            let _ = fs::write(&failure, &reason);
            packages::ensure(fallback, yes)
        }
    }
}

fn is_recent(file: &Path) -> bool {
    fs::metadata(file)
        .and_then(|meta| meta.modified())
        .is_ok_and(|time| time.elapsed().is_ok_and(|age| age < FAILURE_VALID))
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
        // A few lines fit into the pipe, so it can be read after the end.
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|err| format!("rustup: {err}"))?;
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => {
                let mut text = String::new();
                if let Some(stderr) = &mut child.stderr {
                    let _ = stderr.read_to_string(&mut text);
                }
                let last = text.lines().rev().find(|line| !line.trim().is_empty());
                return Err(format!("{status}: {}", last.unwrap_or("no error output").trim()));
            }
            Ok(None) if start.elapsed() < DEADLINE => {
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("timed out after {} s", DEADLINE.as_secs()));
            }
            Err(err) => return Err(err.to_string()),
        }
    }
}
