//! The kernel module, built out of tree against one kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nlrig_host::{Context, ErrorKind, Result, bail, ui};
use xshell::{Shell, cmd};

use crate::kernel::Kernel;
use crate::sources::Tree;
use nlrig_host::cache::{Cache, Key};
use nlrig_host::process::run_logged;

/// A few files; a busy machine may take long all the same.
const BUILD_LIMIT: Duration = Duration::from_secs(10 * 60);

/// The version of how it is built: part of every key.
const RECIPE: &str = "2";

/// A module that was built.
#[derive(Clone, Debug)]
pub struct Module {
    /// What the kernel calls it.
    pub name: String,
    /// The object to load.
    pub path: PathBuf,
    /// The parameters that it is loaded with, as insmod(8) takes them.
    pub parameters: String,
    /// Whether nothing had to be compiled.
    pub from_cache: bool,
}

/// A module to build and to load.
#[derive(Clone, Debug)]
pub struct ModuleSource {
    /// What the kernel calls it.
    pub name: String,
    /// A folder with a file `Kbuild`.
    pub tree: Tree,
    /// The parameters that it is loaded with, as insmod(8) takes them.
    pub parameters: String,
}

/// Finds or builds a module for a kernel.
///
/// # Errors
/// The build failed, or the compiler or modpost warned: warnings are errors
/// here. The message has the first line that says what is wrong.
pub fn build(cache: &Cache, kernel: &Kernel, source: &ModuleSource, jobs: usize) -> Result<Module> {
    let key = Key::new()
        .add("recipe", RECIPE)
        .add("kernel", &kernel.image_sha256)
        .add("config", &kernel.config_sha256)
        .add("name", &source.name);
    let key = source.tree.add_to(key, "module")?;
    let object = format!("{}.ko", source.name);
    let entry = cache.entry("module", key, |dir| {
        ui::status(&format!("module for {} {}: compiling", kernel.version, kernel.arch));
        // In the cache, because Kbuild refuses a path with blanks in M=.
        let build = dir.join("src");
        source.tree.write_to(&build)?;
        compile(kernel, &build, dir, jobs).map_err(|err| err.with_kind(ErrorKind::ModuleBuild))?;
        let built = build.join(&object);
        fs::rename(&built, dir.join(&object))
            .with_context(|| format!("the build made no {object}"))?;
        fs::remove_dir_all(&build)?;
        Ok(())
    })?;
    Ok(Module {
        name: source.name.clone(),
        path: entry.dir.join(&object),
        parameters: source.parameters.clone(),
        from_cache: entry.from_cache,
    })
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
