//! Kernel configuration: fragments merged in their order, resolved by Kconfig,
//! and then held against what was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use nlrig_host::{Error, ErrorKind, Result, bail};

use super::source::Source;
use super::{Builder, does_not_build, flavour, kconfig, make};
use crate::abi::Arch;
use crate::environment;
use crate::sources::data;
use nlrig_host::cache::{self, Key};
use nlrig_host::process::run_logged;

/// Kconfig takes seconds; a cold disk takes longer.
const RESOLVE_LIMIT: Duration = Duration::from_secs(10 * 60);
/// The value of a symbol that is off, in a fragment and in the result.
const OFF: &str = "n";

/// One fragment: the name that messages show, and its text.
type Fragment = (String, String);

/// The resolved configuration of one kernel, from the cache if Kconfig has seen
/// this source, these fragments and this compiler before.
///
/// # Errors
/// A fragment is missing or damaged. A symbol that a fragment sets or unsets is
/// otherwise in the result, or unknown to this source: an error of the kind
/// [`ErrorKind::KernelBuild`] that names all of them.
pub fn resolve(builder: &Builder, source: &Source, arch: Arch, compiler: &str) -> Result<String> {
    let fragments = fragments(builder, arch)?;
    let requested = requested(&fragments)?;
    let merged = merge(&fragments);
    let entry = builder.cache.entry("config", key(source, &merged, arch, compiler), |dir| {
        let tree = source.unpack(&builder.cache)?;
        let build = dir.join("build");
        fs::create_dir_all(&build)?;
        let allconfig = dir.join("merged.config");
        cache::write(&allconfig, &merged)?;
        let log = dir.join("config.log");
        // What is named is set, everything else is off; then the dependencies.
        for target in ["allnoconfig", "olddefconfig"] {
            let mut command = make(&tree, &build, arch, 1, &[target]);
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
        let lost = lost_symbols(&requested, &resolved, &kconfig::symbols(builder, source)?);
        if !lost.is_empty() {
            let reason = format!(
                "kernel configuration {arch}: not as requested after olddefconfig: {}",
                lost.join(", ")
            );
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
    let merged = merge(&fragments(builder, arch)?);
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
        .add("environment", environment::kbuild_key())
}

/// The fragments of one kernel, in the order in which they apply: a later one
/// overrides an earlier one, and the user's come last.
fn fragments(builder: &Builder, arch: Arch) -> Result<Vec<Fragment>> {
    let mut names = vec!["base.config".to_string(), format!("arch-{arch}.config")];
    names.extend(flavour::files(&builder.flavour, arch)?);
    let mut fragments = Vec::new();
    for name in names {
        let name = format!("kernel-config/{name}");
        let text = data(&name)?.to_string();
        fragments.push((name, text));
    }
    for path in &builder.fragments {
        let text = String::from_utf8_lossy(&cache::read(path)?).into_owned();
        fragments.push((path.display().to_string(), text));
    }
    Ok(fragments)
}

fn merge(fragments: &[Fragment]) -> String {
    fragments.iter().map(|(_, text)| format!("{text}\n")).collect()
}

/// What the fragments ask for, by symbol; a later line overrides an earlier one.
/// `# CONFIG_X is not set` and `CONFIG_X=n` are the same.
fn requested(fragments: &[Fragment]) -> Result<BTreeMap<String, String>> {
    let mut symbols = BTreeMap::new();
    for (fragment, text) in fragments {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            let unset = line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set"));
            if let Some(name) = unset.filter(|name| name.starts_with("CONFIG_")) {
                symbols.insert(name.to_string(), OFF.to_string());
            } else if line.starts_with('#') || line.is_empty() {
            } else if let Some((name, value)) = line.split_once('=')
                && name.starts_with("CONFIG_")
            {
                symbols.insert(name.to_string(), value.to_string());
            } else {
                bail!("{fragment}, line {}: not a line of Kconfig: {line}", number + 1);
            }
        }
    }
    Ok(symbols)
}

/// The requested symbols that the resolved configuration has otherwise, each as
/// `CONFIG_X=wanted (is got)`, and those that are not in this source's Kconfig.
fn lost_symbols(
    requested: &BTreeMap<String, String>,
    resolved: &str,
    known: &BTreeSet<String>,
) -> Vec<String> {
    let resolved: BTreeMap<&str, &str> = resolved
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .collect();
    requested
        .iter()
        .filter_map(|(name, wanted)| {
            if !known.contains(name.trim_start_matches("CONFIG_")) {
                return Some(format!("{name}={wanted} (no such symbol in this source)"));
            }
            let got = resolved.get(name.as_str()).copied().unwrap_or(OFF);
            (got != wanted).then(|| format!("{name}={wanted} (is {got})"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<BTreeMap<String, String>> {
        requested(&[("a.config".to_string(), text.to_string())])
    }

    fn known(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_string()).collect()
    }

    #[test]
    fn every_lost_symbol_is_named_set_or_not() {
        let text =
            "# A reason.\n\nCONFIG_NET=y\n# CONFIG_INET is not set\nCONFIG_IPV6=n\nCONFIG_HZ=250\n";
        let requested = of(text).unwrap();
        assert_eq!(requested.len(), 4);
        let all = known(&["NET", "INET", "IPV6", "HZ"]);
        let lost = |resolved| lost_symbols(&requested, resolved, &all);
        assert_eq!(lost("CONFIG_NET=y\n# CONFIG_INET is not set\nCONFIG_HZ=250\n"), [""; 0]);
        assert_eq!(
            lost("# CONFIG_NET is not set\nCONFIG_INET=y\nCONFIG_IPV6=m\nCONFIG_HZ=250\n"),
            ["CONFIG_INET=n (is y)", "CONFIG_IPV6=n (is m)", "CONFIG_NET=y (is n)"]
        );
    }

    /// A misspelt or renamed symbol is never in the result: as good as unset.
    #[test]
    fn a_symbol_that_the_source_does_not_have_is_lost() {
        let requested = of("# CONFIG_INETT is not set\nCONFIG_NET=y\nCONFIG_GONE=n\n").unwrap();
        let lost = lost_symbols(&requested, "CONFIG_NET=y\n", &known(&["NET", "INET"]));
        assert_eq!(lost.len(), 2, "{lost:?}");
        assert!(lost.iter().all(|line| line.contains("no such symbol")), "{lost:?}");
    }

    #[test]
    fn a_later_fragment_overrides() {
        let fragment = |text: &str| ("x".to_string(), text.to_string());
        let merged = [fragment("CONFIG_KASAN=y\n"), fragment("# CONFIG_KASAN is not set\n")];
        assert_eq!(requested(&merged).unwrap()["CONFIG_KASAN"], "n");
    }

    #[test]
    fn what_is_not_kconfig_is_refused_with_its_place() {
        let err = of("CONFIG_NET=y\nCONFIG_NET\n").unwrap_err();
        assert!(err.to_string().contains("a.config, line 2"), "{err}");
        assert!(of("NET=y\n").is_err());
    }
}
