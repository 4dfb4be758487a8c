//! Kernel configuration: fragments merged in their order, resolved by Kconfig,
//! and then held against what was asked for.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use nlrig_host::{Error, ErrorKind, Result, bail};

use super::source::Source;
use super::{Builder, does_not_build, make};
use crate::abi::Arch;
use crate::sources::{DATA, data};
use nlrig_host::cache::{self, Key};
use nlrig_host::process::run_logged;

/// Kconfig takes seconds; a cold disk takes longer.
const RESOLVE_LIMIT: Duration = Duration::from_secs(10 * 60);

/// The resolved configuration of one kernel, from the cache if Kconfig has seen
/// this source, these fragments and this compiler before.
///
/// # Errors
/// A fragment is missing or damaged, or a symbol it asks for did not survive;
/// all lost ones are named.
pub fn resolve(builder: &Builder, source: &Source, arch: Arch, compiler: &str) -> Result<String> {
    let merged = merge(builder, arch)?;
    let entry = builder.cache.entry("config", key(source, &merged, arch, compiler), |dir| {
        let tree = source.unpack(&builder.cache)?;
        let build = dir.join("build");
        fs::create_dir_all(&build)?;
        let allconfig = dir.join("merged.config");
        cache::write(&allconfig, &merged)?;
        let log = dir.join("config.log");
        // What is named is set, everything else is off; then the dependencies.
        for target in ["allnoconfig", "olddefconfig"] {
            let mut command = make(&tree, &build, arch, 1, &[target])?;
            command.env("KCONFIG_ALLCONFIG", &allconfig);
            run_logged(
                command,
                &format!("kernel configuration {arch}"),
                &log,
                RESOLVE_LIMIT,
                |_| {},
            )
            .map_err(does_not_build)?;
        }
        let resolved = fs::read_to_string(build.join(".config"))?;
        let lost = lost_symbols(&requested(&merged)?, &resolved);
        if !lost.is_empty() {
            let lost = lost.join(", ");
            let reason =
                format!("kernel configuration {arch}: {lost} did not survive olddefconfig");
            return Err(Error::new(reason).with_kind(ErrorKind::KernelBuild));
        }
        cache::write(&dir.join("config"), resolved)?;
        fs::remove_dir_all(&build)?;
        Ok(())
    })?;
    Ok(fs::read_to_string(entry.dir.join("config"))?)
}

/// The resolved configuration if Kconfig has made it before.
///
/// # Errors
/// A fragment is missing.
pub fn resolved(
    builder: &Builder,
    source: &Source,
    arch: Arch,
    compiler: &str,
) -> Result<Option<String>> {
    let merged = merge(builder, arch)?;
    match builder.cache.find("config", key(source, &merged, arch, compiler)) {
        Some(entry) => Ok(Some(fs::read_to_string(entry.dir.join("config"))?)),
        None => Ok(None),
    }
}

fn key(source: &Source, merged: &str, arch: Arch, compiler: &str) -> Key {
    Key::new()
        .add("recipe", super::RECIPE)
        .add("source", &source.sha256)
        .add("fragments", merged)
        .add("arch", arch.name())
        .add("compiler", compiler)
}

fn merge(builder: &Builder, arch: Arch) -> Result<String> {
    let mut merged = String::new();
    for name in fragments(&builder.flavour, arch) {
        merged.push_str(data(&name)?);
        merged.push('\n');
    }
    Ok(merged)
}

/// Whether there is a flavour of this name.
pub fn is_flavour(name: &str) -> bool {
    // A fragment with a dot is one architecture's part of a flavour.
    !name.contains(['/', '.']) && has_fragment(&format!("kernel-config/flavour-{name}.config"))
}

fn has_fragment(name: &str) -> bool {
    DATA.get_file(name).is_some()
}

/// The fragments of one kernel, in the order in which they apply. A flavour may
/// have one more for an architecture.
fn fragments(flavour: &str, arch: Arch) -> Vec<String> {
    let mut names: Vec<_> = [
        "base.config".to_string(),
        format!("arch-{arch}.config"),
        format!("flavour-{flavour}.config"),
    ]
    .map(|name| format!("kernel-config/{name}"))
    .to_vec();
    let of_arch = format!("kernel-config/flavour-{flavour}.{arch}.config");
    if has_fragment(&of_arch) {
        names.push(of_arch);
    }
    names
}

/// What the fragments ask for, by symbol; a later line overrides an earlier
/// one. `n` stands for `# CONFIG_X is not set`.
fn requested(merged: &str) -> Result<BTreeMap<String, String>> {
    let mut symbols = BTreeMap::new();
    for (number, line) in merged.lines().enumerate() {
        if let Some(name) =
            line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set"))
            && name.starts_with("CONFIG_")
        {
            symbols.insert(name.to_string(), "n".to_string());
        } else if line.starts_with('#') || line.trim().is_empty() {
        } else if let Some((name, value)) = line.split_once('=')
            && name.starts_with("CONFIG_")
        {
            symbols.insert(name.to_string(), value.to_string());
        } else {
            bail!("line {} of the merged fragments is none of Kconfig: {line}", number + 1);
        }
    }
    Ok(symbols)
}

/// The requested symbols that the resolved configuration has otherwise, each as
/// `CONFIG_X=wanted (is got)`.
fn lost_symbols(requested: &BTreeMap<String, String>, resolved: &str) -> Vec<String> {
    let resolved: BTreeMap<&str, &str> = resolved
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .collect();
    requested
        .iter()
        .filter_map(|(name, wanted)| {
            let got = resolved.get(name.as_str()).copied().unwrap_or("n");
            (got != wanted).then(|| format!("{name}={wanted} (is {got})"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MERGED: &str = "# A reason.\n\nCONFIG_NET=y\n# CONFIG_INET is not set\nCONFIG_HZ=250\n";

    #[test]
    fn a_lost_symbol_is_named() {
        let requested = requested(MERGED).unwrap();
        assert_eq!(requested.len(), 3);
        let all = "CONFIG_NET=y\n# CONFIG_INET is not set\nCONFIG_HZ=250\n";
        assert_eq!(lost_symbols(&requested, all), [""; 0]);
        let lost =
            lost_symbols(&requested, "# CONFIG_NET is not set\nCONFIG_INET=y\nCONFIG_HZ=250\n");
        assert_eq!(lost, ["CONFIG_INET=n (is y)", "CONFIG_NET=y (is n)"]);
    }

    #[test]
    fn a_later_fragment_overrides() {
        let requested = requested("CONFIG_KASAN=y\n# CONFIG_KASAN is not set\n").unwrap();
        assert_eq!(requested["CONFIG_KASAN"], "n");
    }

    #[test]
    fn what_is_no_kconfig_is_refused() {
        assert!(requested("CONFIG_NET\n").is_err());
        assert!(requested("NET=y\n").is_err());
    }
}
