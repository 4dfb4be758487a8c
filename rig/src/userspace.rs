//! The guest's programs, compiled by cargo: static, for either word size.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::abi::Arch;
use crate::process::run_logged;
use crate::project::Project;
use crate::say;
use crate::toolchain::{self, Toolchain};

/// Building the standard library takes two minutes of two cores.
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);

/// The programs for one architecture.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
    /// Whether nothing had to be compiled.
    pub from_cache: bool,
}

impl Programs {
    /// One program, by the name of its file in `userspace/src/bin`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Compiles what is stale; cargo knows what that is.
///
/// # Errors
/// There is no compiler for this architecture, or the build failed.
pub fn build(project: &Project, arch: Arch) -> Result<Programs> {
    let choice = toolchain::choose(arch)?;
    say::detail(&format!("guest programs for {arch}: {}", choice.reason));
    let target = arch.rust_target();
    let folder = project.target().join("userspace");
    std::fs::create_dir_all(&folder)?;
    let log = folder.join(format!("{arch}.log"));
    let _ = std::fs::remove_file(&log);

    let mut compiled = 0;
    let mut progress = say::Progress::new();
    let what = format!("guest programs for {arch}");
    run_logged(
        command(project, &folder, target, &choice.toolchain)?,
        &what,
        &log,
        BUILD_LIMIT,
        |line| {
            if line.trim_start().starts_with("Compiling ") {
                compiled += 1;
                if compiled == 1 {
                    say::status(&format!("{what}: compiling"));
                }
                progress.update(|| format!("{what}: {compiled} crates"));
            }
        },
    )?;
    Ok(Programs { folder: folder.join(target).join("guest"), from_cache: compiled == 0 })
}

fn command(
    project: &Project,
    folder: &std::path::Path,
    target: &str,
    toolchain: &Toolchain,
) -> Result<Command> {
    let sh = Shell::new()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut arguments = vec!["--locked", "--profile", "guest", "-p", "nlrig-guest", "--bins"];
    if matches!(toolchain, Toolchain::BuildStd { .. }) {
        arguments.push("-Zbuild-std=std,panic_abort");
    }
    let mut command: Command =
        cmd!(sh, "{cargo} build {arguments...} --target {target} --target-dir {folder}").into();
    command
        .current_dir(project.root())
        // With an explicit target these flags are for it alone, not for build
        // scripts.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_TARGET");
    if let Toolchain::BuildStd { rustc } = toolchain {
        // Unstable in name; the compiler is told that it may.
        command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
    }
    Ok(command)
}
