//! Which Rust compiler makes the guest's programs.
//!
//! An installed target of rustup's is taken first. Where there is none, `cargo
//! xtask` asks rustup for it under a deadline; where that fails too, it installs
//! the distribution's compiler with the source of its library, and the library
//! is built with the program.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nlrig_host::{Result, bail};

use crate::abi::Arch;
use crate::environment;
use nlrig_host::process::capture;

/// The distribution's compiler (package `rustc-web`); the source of its library
/// is `rust-web-src`.
const DISTRIBUTION: &str = "/usr/bin/rustc";
/// rustc answers at once; a cold disk takes longer.
const ASK_LIMIT: Duration = Duration::from_secs(60);

/// A way to compile for one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// cargo's own compiler has the target's library.
    Installed,
    /// This compiler, and a library built from its source.
    BuildStd {
        /// The compiler.
        rustc: PathBuf,
    },
}

/// What was taken, and why.
#[derive(Clone, Debug)]
pub struct ToolchainChoice {
    /// The way.
    pub toolchain: Toolchain,
    /// One line for `doctor`.
    pub reason: String,
}

/// cargo's own compiler: `$RUSTC`, or the first in PATH.
pub fn rustc() -> PathBuf {
    PathBuf::from(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// Chooses the compiler for programs of this architecture.
///
/// # Errors
/// There is none; the message says what would help.
pub fn choose(arch: Arch) -> Result<ToolchainChoice> {
    let target = arch.rust_target();
    let version = |rustc: &Path| {
        let mut command = environment::cargo(rustc);
        command.arg("--version");
        capture(command, ASK_LIMIT).map(|text| text.trim().to_string())
    };
    let rustc = rustc();
    if has_library(&rustc, target) {
        let reason = format!("{}, which has the target {target}", version(&rustc)?);
        return Ok(ToolchainChoice { toolchain: Toolchain::Installed, reason });
    }
    let rustc = Path::new(DISTRIBUTION);
    if rustc.exists() && has_source(rustc) {
        let reason = format!(
            "{} of the distribution with its library built from source: rustup has no {target}",
            version(rustc)?
        );
        let toolchain = Toolchain::BuildStd { rustc: rustc.to_path_buf() };
        return Ok(ToolchainChoice { toolchain, reason });
    }
    bail!(
        "no Rust compiler for {target}: `rustup target add {target}`, or install rustc-web and rust-web-src"
    )
}

fn has_library(rustc: &Path, target: &str) -> bool {
    let mut command = environment::cargo(rustc);
    command.args(["--print", "target-libdir", "--target", target]);
    capture(command, ASK_LIMIT).is_ok_and(|folder| {
        std::fs::read_dir(folder.trim()).is_ok_and(|mut files| {
            files.any(|file| {
                file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
            })
        })
    })
}

/// Where cargo's build-std looks for the library's source.
fn has_source(rustc: &Path) -> bool {
    let mut command = environment::cargo(rustc);
    command.args(["--print", "sysroot"]);
    capture(command, ASK_LIMIT).is_ok_and(|root| {
        Path::new(root.trim()).join("lib/rustlib/src/rust/library/std/Cargo.toml").is_file()
    })
}
