//! Programs for the guest, compiled by cargo: static, for either word size.
//!
//! Their source is carried in the rig's own program, so that an installed rig
//! needs no checkout. It is written to a folder of the cache and built there;
//! the results are an entry of the cache, and cargo is not asked again as long
//! as source and compiler are the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cargo_metadata::Message;
use include_dir::Dir;
use nlrig_host::cache::{self, Cache, Key};
use nlrig_host::process::run_logged;
use nlrig_host::{Context, Result, bail, ui};

use crate::abi::Arch;
use crate::environment;
use crate::sources::{DATA, Tree, data, write_if_changed};
use crate::toolchain::{self, Toolchain};

/// Building the standard library takes two minutes of two cores.
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
/// The version of how programs are built: part of every key.
const RECIPE: &str = "2";
/// The profile of the workspace's manifest that they are built with.
const PROFILE: &str = "guest";

/// A crate whose programs run in guests, with the crates of its own that it
/// depends on.
#[derive(Clone, Debug)]
pub struct GuestCrate {
    /// The package whose programs are built.
    pub package: &'static str,
    /// The crates, by their folder in the workspace.
    pub crates: Vec<CrateSource>,
}

/// The source of one crate. Manifest and source are apart, because cargo leaves
/// folders with a manifest out of a package.
#[derive(Clone, Debug)]
pub struct CrateSource {
    /// Its folder in the workspace.
    pub folder: &'static str,
    /// Its `Cargo.toml`.
    pub manifest: &'static str,
    /// Its folder `src`.
    pub source: &'static Dir<'static>,
}

/// PID 1 of every guest.
///
/// # Errors
/// The data of this crate is incomplete.
pub(crate) fn init() -> Result<GuestCrate> {
    Ok(GuestCrate { package: "nlrig-init", crates: vec![init_source()?] })
}

/// The source of PID 1 and of the protocol by which a guest is driven: crates of
/// workloads depend on it.
///
/// # Errors
/// The data of this crate is incomplete.
pub fn init_source() -> Result<CrateSource> {
    Ok(CrateSource {
        folder: "userspace/init",
        manifest: data("crates/init.toml")?,
        source: DATA.get_dir("crates/init").context("there is no crates/init")?,
    })
}

/// The programs of a crate for one architecture.
#[derive(Clone, Debug)]
pub struct Programs {
    dir: PathBuf,
    /// Their names.
    pub names: Vec<String>,
    /// Whether nothing had to be compiled.
    pub from_cache: bool,
}

impl Programs {
    /// One program, by its name in the crate's manifest.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Each program's name and file.
    pub fn files(&self) -> Vec<(String, PathBuf)> {
        self.names.iter().map(|name| (name.clone(), self.path(name))).collect()
    }
}

/// Finds or compiles the programs of a crate.
///
/// # Errors
/// There is no compiler for this architecture, or the build failed.
pub fn build(cache: &Cache, guest: &GuestCrate, arch: Arch) -> Result<Programs> {
    let choice = toolchain::choose(arch)?;
    ui::detail(&format!("guest programs for {arch}: {}", choice.reason));
    let mut key = Key::new()
        .add("recipe", RECIPE)
        .add("package", guest.package)
        .add("target", arch.rust_target())
        .add("compiler", &choice.reason)
        .add("workspace", workspace_manifest(guest)?)
        .add("lock", data("workspace/root.lock")?);
    for source in &guest.crates {
        key = key.add("manifest", source.manifest);
        key = Tree::Embedded(source.source).add_to(key, source.folder)?;
    }
    let entry = cache.entry("programs", key, |dir| {
        let made = compile(cache, guest, arch, &choice.toolchain, dir)?;
        for (name, path) in made {
            let target = dir.join(name);
            fs::copy(&path, &target).with_context(|| format!("cannot copy {}", path.display()))?;
        }
        Ok(())
    })?;
    let mut names: Vec<String> = fs::read_dir(&entry.dir)?
        .filter_map(|file| file.ok()?.file_name().into_string().ok())
        .filter(|name| !name.contains('.'))
        .collect();
    names.sort_unstable();
    Ok(Programs { dir: entry.dir, names, from_cache: entry.from_cache })
}

/// Runs cargo in the workspace of the cache; gives back the programs by name.
fn compile(
    cache: &Cache,
    guest: &GuestCrate,
    arch: Arch,
    toolchain: &Toolchain,
    dir: &Path,
) -> Result<BTreeMap<String, PathBuf>> {
    let what = format!("{} for {arch}", guest.package);
    ui::status(&format!("{what}: compiling"));
    // One folder for all versions, so that cargo compiles what differs only; the
    // lock keeps two runs apart.
    let work = cache.root().join("cargo");
    let _lock = cache.lock("cargo", "guest programs")?;
    let workspace = work.join(guest.package);
    write_workspace(guest, &workspace)?;
    let mut made = BTreeMap::new();
    let mut compiled = 0;
    let mut progress = ui::Progress::new();
    let log = dir.join("build.log");
    let command = command(guest, &workspace, &work.join("target"), arch, toolchain);
    run_logged(command, &what, &log, BUILD_LIMIT, |line| {
        let Ok(Message::CompilerArtifact(artifact)) = serde_json::from_str(line) else { return };
        compiled += u32::from(!artifact.fresh);
        progress.update(|| format!("{what}: {compiled} crates"));
        if let Some(path) = artifact.executable {
            made.insert(artifact.target.name, path.into_std_path_buf());
        }
    })?;
    if made.is_empty() {
        bail!("{what}: cargo made no program; the whole log is {}", log.display());
    }
    Ok(made)
}

fn write_workspace(guest: &GuestCrate, workspace: &Path) -> Result<()> {
    write_if_changed(&workspace.join("Cargo.toml"), workspace_manifest(guest)?.as_bytes())?;
    // cargo leaves out what these crates do not use, and keeps the versions.
    let lock = workspace.join("Cargo.lock");
    let wanted = workspace.join("full.lock");
    if fs::read_to_string(&wanted).ok().as_deref() != Some(data("workspace/root.lock")?) {
        cache::write(&lock, data("workspace/root.lock")?)?;
        cache::write(&wanted, data("workspace/root.lock")?)?;
    }
    for source in &guest.crates {
        let folder = workspace.join(source.folder);
        Tree::Embedded(source.source).write_to(&folder.join("src"))?;
        write_if_changed(&folder.join("Cargo.toml"), source.manifest.as_bytes())?;
    }
    Ok(())
}

/// The manifest of the rig's own workspace, with these crates as its members.
fn workspace_manifest(guest: &GuestCrate) -> Result<String> {
    let root = data("workspace/root.toml")?;
    let mut manifest: toml::Table = toml::from_str(root).context("workspace/root.toml")?;
    let members: Vec<toml::Value> =
        guest.crates.iter().map(|source| source.folder.into()).collect();
    let workspace = manifest.get_mut("workspace").and_then(toml::Value::as_table_mut);
    let workspace = workspace.context("workspace/root.toml has no workspace")?;
    workspace.insert("members".to_string(), members.into());
    toml::to_string(&manifest).map_err(|err| nlrig_host::Error::new(err.to_string()))
}

fn command(
    guest: &GuestCrate,
    workspace: &Path,
    target: &Path,
    arch: Arch,
    toolchain: &Toolchain,
) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = environment::cargo(cargo);
    command
        .args(["build", "--profile", PROFILE, "--bins"])
        .arg("--message-format=json-render-diagnostics")
        .args(["-p", guest.package, "--target", arch.rust_target(), "--target-dir"])
        .arg(target)
        .current_dir(workspace)
        // With an explicit target these flags are for it alone, not for build
        // scripts.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    match toolchain {
        Toolchain::Installed => command.env("RUSTC", toolchain::rustc()),
        // Unstable in name; the compiler is told that it may.
        Toolchain::BuildStd { rustc } => command
            .arg("-Zbuild-std=std,panic_abort")
            .env("RUSTC", rustc)
            .env("RUSTC_BOOTSTRAP", "1"),
    };
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_of_the_guest_has_its_own_members_only() {
        let text = workspace_manifest(&init().unwrap()).unwrap();
        let manifest: toml::Table = toml::from_str(&text).unwrap();
        let members = manifest["workspace"]["members"].as_array().unwrap();
        assert_eq!(members.len(), 1, "{text}");
        assert!(manifest["profile"].get(PROFILE).is_some(), "{text}");
    }
}
