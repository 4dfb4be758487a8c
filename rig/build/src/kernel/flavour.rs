//! Flavours: the sets of configuration that a kernel can have beyond what all
//! kernels of the rig have.
//!
//! A flavour is a file `kernel-config/flavour-NAME.config`, a file
//! `flavour-NAME.ARCH.config` for what one architecture alone has, or both. One
//! that has only the latter exists for that architecture alone.

use std::collections::BTreeMap;

use nlrig_host::{Error, Result};
use serde::Serialize;

use crate::abi::Arch;
use crate::sources::DATA;

/// A flavour that a kernel can be built with.
#[derive(Clone, Debug, Serialize)]
pub struct Flavour {
    /// Its name.
    pub name: String,
    /// What it is for: the first paragraph of its file.
    pub summary: String,
    /// The architectures that have it.
    pub arches: Vec<Arch>,
}

/// Every flavour, by name.
pub fn all() -> Vec<Flavour> {
    let mut found: BTreeMap<&str, Vec<(Option<&str>, &str)>> = BTreeMap::new();
    let folder = DATA.get_dir("kernel-config");
    for file in folder.iter().flat_map(|folder| folder.files()) {
        let name = file.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(name) =
            name.strip_prefix("flavour-").and_then(|name| name.strip_suffix(".config"))
        else {
            continue;
        };
        let (name, arch) = match name.split_once('.') {
            Some((name, arch)) => (name, Some(arch)),
            None => (name, None),
        };
        let text = file.contents_utf8().unwrap_or_default();
        found.entry(name).or_default().push((arch, text));
    }
    found
        .into_iter()
        .map(|(name, mut files)| {
            // The file for all architectures first.
            files.sort_unstable();
            let for_all = files.iter().any(|(arch, _)| arch.is_none());
            let has = |arch: &Arch| for_all || files.iter().any(|(of, _)| *of == Some(arch.name()));
            Flavour {
                name: name.to_string(),
                summary: files.first().map_or(String::new(), |(_, text)| summary(text)),
                arches: Arch::ALL.into_iter().filter(has).collect(),
            }
        })
        .collect()
}

/// The flavour of this name.
///
/// # Errors
/// A usage error that lists the ones there are.
pub fn find(name: &str) -> Result<Flavour> {
    let all = all();
    let names: Vec<_> = all.iter().map(|flavour| flavour.name.clone()).collect();
    all.into_iter().find(|flavour| flavour.name == name).ok_or_else(|| {
        Error::usage(format!("no flavour \"{name}\": there is {}", names.join(", ")))
    })
}

/// The files of a flavour for one architecture, in the order in which they apply.
///
/// # Errors
/// A usage error: there is no such flavour, or not for this architecture.
pub(super) fn files(name: &str, arch: Arch) -> Result<Vec<String>> {
    let flavour = find(name)?;
    if !flavour.arches.contains(&arch) {
        let arches: Vec<_> = flavour.arches.iter().map(|arch| arch.name()).collect();
        return Err(Error::usage(format!(
            "flavour \"{name}\" is for {} kernels, not for {arch}: choose another --abi",
            arches.join(", ")
        )));
    }
    let files = [format!("flavour-{name}.config"), format!("flavour-{name}.{arch}.config")];
    let exists = |file: &String| DATA.get_file(format!("kernel-config/{file}")).is_some();
    Ok(files.into_iter().filter(exists).collect())
}

/// The first paragraph of a fragment's comments, on one line.
fn summary(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("# "));
    lines.take_while(|line| !line.starts_with("--")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_flavour_is_answered_with_the_choices() {
        let err = find("vanilla").unwrap_err();
        assert_eq!(err.kind(), nlrig_host::ErrorKind::Usage);
        let text = err.to_string();
        assert!(["vanilla", "default", "debug"].iter().all(|name| text.contains(name)), "{text}");
        // A file name is not a flavour's name.
        assert!(find("debug.x86_64").is_err() && find("../flavour-debug").is_err());
    }

    #[test]
    fn every_flavour_has_a_summary_and_an_architecture() {
        for Flavour { name, summary, arches } in all() {
            assert!(!summary.is_empty() && !arches.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_flavour_of_one_architecture_is_refused_for_the_other() {
        assert_eq!(find("split-2g").unwrap().arches, [Arch::I386]);
        let files_of = |arch| files("split-2g", arch);
        assert_eq!(files_of(Arch::I386).unwrap(), ["flavour-split-2g.i386.config"]);
        let err = files_of(Arch::X86_64).unwrap_err().to_string();
        assert!(err.contains("i386") && err.contains("--abi"), "{err}");
        let debug = ["flavour-debug.config", "flavour-debug.x86_64.config"];
        assert_eq!(files("debug", Arch::X86_64).unwrap(), debug);
    }
}
