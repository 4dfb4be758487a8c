//! The kernel module, built out of tree against one kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

use crate::cache::{Cache, Key};
use crate::kernel::Kernel;
use crate::process::run_logged;
use crate::say;

/// A few files; a busy machine may take long all the same.
const BUILD_LIMIT: Duration = Duration::from_secs(10 * 60);

/// The version of how it is built: part of every key.
const RECIPE: &str = "1";

/// A module that was built.
#[derive(Clone, Debug)]
pub struct Module {
    /// The object to load.
    pub path: PathBuf,
    /// Whether nothing had to be compiled.
    pub from_cache: bool,
}

/// Finds or builds the module in `source` for a kernel.
///
/// # Errors
/// The build failed, or the compiler or modpost warned: warnings are errors
/// here. The message has the first line that says what is wrong.
pub fn build(cache: &Cache, kernel: &Kernel, source: &Path, jobs: usize) -> Result<Module> {
    let key = Key::new()
        .add("recipe", RECIPE)
        .add("kernel", &kernel.image_sha256)
        .add("config", &kernel.config_sha256)
        .add_tree("module", source)?;
    let entry = cache.entry("module", key, |dir| {
        say::status(&format!("module for {} {}: compiling", kernel.version, kernel.arch));
        // In the cache, because Kbuild refuses a path with blanks in M=.
        let build = dir.join("src");
        copy_tree(source, &build)?;
        compile(kernel, &build, dir, jobs)?;
        fs::rename(build.join("nlrig.ko"), dir.join("nlrig.ko"))?;
        fs::remove_dir_all(&build)?;
        Ok(())
    })?;
    Ok(Module { path: entry.dir.join("nlrig.ko"), from_cache: entry.from_cache })
}

fn compile(kernel: &Kernel, build: &Path, dir: &Path, jobs: usize) -> Result<()> {
    let sh = Shell::new()?;
    let (kernel_build, arch, jobs) = (kernel.build_dir(), kernel.arch.name(), jobs.to_string());
    let command: Command =
        cmd!(sh, "make -C {kernel_build} ARCH={arch} -j{jobs} M={build} modules")
            .env("LC_ALL", "C")
            .env_remove("MAKEFLAGS")
            .into();
    let log = dir.join("build.log");
    let mut warning = None;
    run_logged(command, &format!("module {arch}"), &log, BUILD_LIMIT, |line| {
        if warning.is_none() && line.to_ascii_lowercase().contains("warning:") {
            warning = Some(line.to_string());
        }
    })?;
    match warning {
        None => Ok(()),
        Some(line) => bail!("module {arch}: {line}; the whole log is {}", log.display()),
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
