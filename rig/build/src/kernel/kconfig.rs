//! The symbols that a kernel's source has: the names in its Kconfig files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nlrig_host::cache::{self, Key};
use nlrig_host::{Context, Result, interrupt};

use super::Builder;
use super::source::Source;

/// The file with the names, in its entry of the cache.
const FILE: &str = "symbols";

/// Every symbol that the source defines for x86, without `CONFIG_`; read once
/// for each source.
///
/// # Errors
/// The source cannot be unpacked or read.
pub fn symbols(builder: &Builder, source: &Source) -> Result<BTreeSet<String>> {
    let key = Key::new().add("recipe", "kconfig 1").add("source", &source.sha256);
    let entry = builder.cache.entry("config", key, |dir| {
        let mut found = BTreeSet::new();
        read_folder(&source.unpack(&builder.cache)?, Path::new(""), &mut found)?;
        let names: String = found.iter().map(|name| format!("{name}\n")).collect();
        cache::write(&dir.join(FILE), names)
    })?;
    let names = fs::read_to_string(entry.dir.join(FILE))?;
    Ok(names.lines().map(str::to_string).collect())
}

/// Reads the Kconfig files below a folder of the source, those of other
/// architectures left out.
fn read_folder(source: &Path, name: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    interrupt::check()?;
    let folder = source.join(name);
    let cannot = || format!("cannot read {}", folder.display());
    for entry in fs::read_dir(&folder).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let name = name.join(entry.file_name());
        let kind = entry.file_type().with_context(cannot)?;
        if kind.is_dir() {
            let other_arch = name.parent() == Some(Path::new("arch")) && !name.ends_with("x86");
            if !other_arch && !name.ends_with(".git") {
                read_folder(source, &name, found)?;
            }
        } else if kind.is_file() && entry.file_name().to_string_lossy().starts_with("Kconfig") {
            let text = cache::read(&source.join(&name))?;
            found.extend(defined(&String::from_utf8_lossy(&text)).map(str::to_string));
        }
    }
    Ok(())
}

/// The symbols that a Kconfig file defines.
fn defined(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let keyword = words.next()?;
        let name = words.next()?;
        matches!(keyword, "config" | "menuconfig").then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_those_of_x86_and_of_all_architectures() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            (
                "net/Kconfig",
                "menuconfig NET\n\tbool \"Networking\"\nif NET\n  config INET\nendif\n",
            ),
            ("net/Kconfig.debug", "config DEBUG_NET\n\thelp\n\t  config file\n"),
            ("net/Makefile", "config NOTHING\n"),
            ("arch/Kconfig", "config KPROBES\n"),
            ("arch/x86/Kconfig", "config X86_MPPARSE\n"),
            ("arch/arm/Kconfig", "config ARM_LPAE\n"),
        ] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut found = BTreeSet::new();
        read_folder(dir.path(), Path::new(""), &mut found).unwrap();
        let expected = ["DEBUG_NET", "INET", "KPROBES", "NET", "X86_MPPARSE", "file"];
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }
}
