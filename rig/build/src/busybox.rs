//! The guest's shell and tools: the distribution's static busybox, of either
//! word size.
//!
//! It is downloaded as a package and unpacked in the cache, with package lists
//! of the rig's own: the host's list of architectures is not touched, and a
//! `busybox` that the host has installed is not in the way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nlrig_host::{Context, Result, bail, ui};

use crate::abi::Arch;
use nlrig_host::cache::{Cache, Key};
use nlrig_host::process::{capture, run_logged};

/// Package lists are some ten MB, the package one; the network may be slow.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(5 * 60);
/// The version of how it is fetched: part of every key.
const RECIPE: &str = "1";
/// The package that has it.
const PACKAGE: &str = "busybox-static";

/// Finds or downloads busybox for programs of this architecture.
///
/// # Errors
/// The package cannot be downloaded, or does not hold a static program of this
/// word size.
pub fn fetch(cache: &Cache, arch: Arch) -> Result<PathBuf> {
    let key = Key::new().add("recipe", RECIPE).add("arch", arch.debian()).add("release", release());
    let entry = cache.entry("busybox", key, |dir| {
        ui::status(&format!("busybox for {arch}: downloading {PACKAGE}:{}", arch.debian()));
        let work = dir.join("work");
        download(&work, arch, &dir.join("apt.log"))?;
        let package = fs::read_dir(&work)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|kind| kind == "deb"))
            .context("apt-get download left no package")?;
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("-x").arg(&package).arg(work.join("root"));
        capture(unpack, Duration::from_secs(60))?;
        let program = dir.join("busybox");
        fs::rename(work.join("root/bin/busybox"), &program)?;
        check(&program, arch)?;
        fs::remove_dir_all(&work)?;
        Ok(())
    })?;
    Ok(entry.dir.join("busybox"))
}

/// The names of the commands in a busybox.
///
/// # Errors
/// The host cannot run it.
pub fn commands(busybox: &Path) -> Result<Vec<String>> {
    let mut command = Command::new(busybox);
    command.arg("--list");
    let text = capture(command, Duration::from_secs(20))?;
    Ok(text.lines().filter(|name| !name.is_empty()).map(str::to_string).collect())
}

fn download(work: &Path, arch: Arch, log: &Path) -> Result<()> {
    fs::create_dir_all(work.join("lists/partial"))?;
    fs::create_dir_all(work.join("cache/archives/partial"))?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .current_dir(work)
            .arg(format!("-oAPT::Architecture={}", arch.debian()))
            .arg(format!("-oAPT::Architectures::={}", arch.debian()))
            .arg(format!("-oDir::State::lists={}", work.join("lists").display()))
            .arg(format!("-oDir::Cache={}", work.join("cache").display()))
            .args(["-oAcquire::Retries=3", "-oAcquire::Languages=none"])
            // apt's own user cannot write to this user's cache.
            .arg("-oAPT::Sandbox::User=root")
            .args(arguments)
            .env("LC_ALL", "C");
        command
    };
    // One list of many may be out of step with its index; what counts is
    // whether the package can be had.
    let lists = run_logged(apt(&["update"]), "apt-get update", log, DOWNLOAD_LIMIT, |_| {});
    let package = format!("{PACKAGE}:{}", arch.debian());
    run_logged(apt(&["download", &package]), "apt-get download", log, DOWNLOAD_LIMIT, |_| {})
        .map_err(|err| match lists {
            Err(lists) => err.context(format!("{lists:#}")),
            Ok(()) => err,
        })
        .with_context(|| format!("cannot download {package}"))
}

/// Refuses a program of another word size, or one that needs a loader.
fn check(program: &Path, arch: Arch) -> Result<()> {
    let head = fs::read(program)?;
    let class = match arch {
        Arch::I386 => 1,
        Arch::X86_64 => 2,
    };
    if head.get(..4) != Some(b"\x7fELF") || head.get(4) != Some(&class) {
        bail!("{} is not a program for {arch}", program.display());
    }
    if needs_loader(&head, arch) {
        bail!("{} is not static", program.display());
    }
    Ok(())
}

/// Whether an ELF program has a header of type PT_INTERP (elf(5)).
fn needs_loader(elf: &[u8], arch: Arch) -> bool {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let field = elf.get(at..at.checked_add(bytes)?)?;
        Some(field.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    };
    // Where e_phoff, e_phentsize and e_phnum are.
    let (offset, size, count) = match arch {
        Arch::I386 => (number(28, 4), number(42, 2), number(44, 2)),
        Arch::X86_64 => (number(32, 8), number(54, 2), number(56, 2)),
    };
    let (Some(offset), Some(size), Some(count)) = (offset, size, count) else { return false };
    (0..count).any(|index| number((offset + index * size) as usize, 4) == Some(PT_INTERP))
}

/// The host's release: another one has another busybox.
fn release() -> String {
    fs::read_to_string("/etc/os-release").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_loader_is_told_from_one_without() {
        let shell = fs::read("/bin/sh").unwrap();
        assert!(needs_loader(&shell, Arch::X86_64), "the host's shell is not static");
        assert!(!needs_loader(b"\x7fELF\x02", Arch::X86_64), "a stump is no reason to panic");
    }
}
