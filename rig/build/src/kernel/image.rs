//! Kernels that were built elsewhere: an ELF image, and what can be known of it
//! before it boots.

use std::fs;
use std::path::Path;

use nlrig_host::cache::{self, Cache, Key};
use nlrig_host::{Context, Error, Result};
use object::{Architecture, Object, ObjectSymbol, SymbolKind};

use super::{Kernel, MANIFEST};
use crate::abi::Arch;

/// The version of how images are described: part of every key.
const RECIPE: &str = "image 1";
/// What an image says in place of what only its build knows.
const UNKNOWN: &str = "unknown";

/// What a guest of the rig needs built into its kernel: an option, and a symbol
/// that the kernel has if it is on.
const NEEDED: &[(&str, &str)] = &[
    ("BINFMT_ELF", "elf_format"),
    ("BLK_DEV_INITRD", "populate_rootfs"),
    ("DEVTMPFS", "dev_fs_type"),
    ("PROC_FS", "proc_fs_type"),
    ("SERIAL_8250_CONSOLE", "univ8250_console"),
    ("SYSFS", "sysfs_fs_type"),
    ("VIRTIO_CONSOLE", "virtio_console"),
    ("VIRTIO_FS", "virtio_fs_driver"),
    ("VIRTIO_MMIO", "virtio_mmio_driver"),
    ("VIRTIO_MMIO_CMDLINE_DEVICES", "vm_cmdline_param_ops"),
];

/// What was read from an image.
#[derive(Debug)]
struct Facts {
    arch: Arch,
    release: String,
    /// Its symbols as in a `System.map`; empty if it has no symbol table.
    symbols: String,
    /// The options that it lacks.
    lacks: Vec<&'static str>,
}

/// The kernel in this file, with a copy of it in the cache.
///
/// # Errors
/// It cannot be read, or cannot boot a guest of the rig; the message names the
/// options that it lacks.
pub fn describe(cache: &Cache, path: &Path) -> Result<Kernel> {
    let image_sha256 = cache.file_sha256(path)?;
    let key = Key::new().add("recipe", RECIPE).add("image", &image_sha256);
    let entry = cache.entry("kernel", key, |dir| {
        let bytes = cache::read(path)?;
        let cannot = |reason: String| Error::new(format!("{}: {reason}", path.display()));
        let facts = read(&bytes).map_err(cannot)?;
        if !facts.lacks.is_empty() {
            let lacks = facts.lacks.join(", ");
            return Err(cannot(format!("a guest needs what this kernel lacks: {lacks}")));
        }
        let build = dir.join("build");
        fs::create_dir_all(&build)?;
        cache::write(&build.join("vmlinux"), &bytes)?;
        cache::write(&build.join("System.map"), facts.symbols)?;
        let kernel = Kernel {
            version: facts.release,
            arch: facts.arch,
            flavour: String::new(),
            source_sha256: UNKNOWN.to_string(),
            config_sha256: UNKNOWN.to_string(),
            image_sha256: image_sha256.clone(),
            compiler: UNKNOWN.to_string(),
            objects: 0,
            dir: dir.to_path_buf(),
            from_cache: false,
        };
        cache::write(&dir.join(MANIFEST), serde_json::to_string_pretty(&kernel)?)
    })?;
    let manifest = entry.dir.join(MANIFEST);
    let kernel: Kernel = serde_json::from_slice(&cache::read(&manifest)?)
        .with_context(|| format!("{} is damaged", manifest.display()))?;
    Ok(Kernel { dir: entry.dir, from_cache: entry.from_cache, ..kernel })
}

fn read(bytes: &[u8]) -> Result<Facts, String> {
    if bytes.get(0x202..0x206) == Some(b"HdrS") {
        return Err("a bzImage; give the ELF file vmlinux of the same build".to_string());
    }
    let file = object::File::parse(bytes).map_err(|err| format!("not an ELF file: {err}"))?;
    let arch = match file.architecture() {
        Architecture::I386 => Arch::I386,
        Architecture::X86_64 => Arch::X86_64,
        other => return Err(format!("built for {other:?}; the rig boots i386 and x86_64")),
    };
    let release = release(bytes).ok_or("no banner \"Linux version\": not a Linux kernel")?;
    let mut symbols: Vec<_> = file
        .symbols()
        .filter_map(|symbol| {
            let kind = if symbol.kind() == SymbolKind::Text { 't' } else { 'd' };
            Some((symbol.address(), kind, symbol.name().ok()?))
        })
        .filter(|(_, _, name)| !name.is_empty())
        .collect();
    symbols.sort_unstable();
    let mut lacks = Vec::new();
    if !has_pvh_entry(bytes) {
        lacks.push("PVH");
    }
    if !symbols.is_empty() {
        // A compiler may add a suffix to a local symbol's name.
        let has = |wanted: &str| {
            symbols.iter().any(|(_, _, name)| name.split('.').next() == Some(wanted))
        };
        lacks.extend(NEEDED.iter().filter(|(_, symbol)| !has(symbol)).map(|(option, _)| option));
    }
    let symbols =
        symbols.iter().map(|(address, kind, name)| format!("{address:x} {kind} {name}\n"));
    Ok(Facts { arch, release, symbols: symbols.collect(), lacks })
}

/// The release in a kernel's banner.
fn release(bytes: &[u8]) -> Option<String> {
    const START: &[u8] = b"Linux version ";
    let at = bytes.windows(START.len()).position(|part| part == START)?;
    let rest = bytes.get(at + START.len()..)?;
    let end = rest.iter().take(64).position(|&byte| byte == b' ')?;
    String::from_utf8(rest[..end].to_vec()).ok()
}

/// Whether a note names the entry point that QEMU jumps to: XEN_ELFNOTE_PHYS32_ENTRY
/// (xen/interface/elfnote.h), an address of 4 or 8 bytes.
fn has_pvh_entry(bytes: &[u8]) -> bool {
    const TYPE_AND_OWNER: &[u8] = b"\x12\0\0\0Xen\0";
    bytes.windows(16).any(|note| {
        note.starts_with(&[4, 0, 0, 0])
            && matches!(note[4..8], [4 | 8, 0, 0, 0])
            && note.ends_with(TYPE_AND_OWNER)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_kernel_is_refused_with_the_reason() {
        let mut boot_image = vec![0; 0x400];
        boot_image[0x202..0x206].copy_from_slice(b"HdrS");
        assert!(read(&boot_image).unwrap_err().contains("vmlinux"));
        assert!(read(b"text").unwrap_err().contains("ELF"));
        let shell = fs::read("/bin/sh").unwrap();
        assert!(read(&shell).unwrap_err().contains("not a Linux kernel"));
    }

    #[test]
    fn release_and_entry_are_found() {
        let text = b"\0Linux version 6.1.0-x+ (nlrig@nlrig) #1\0".to_vec();
        assert_eq!(release(&text).as_deref(), Some("6.1.0-x+"));
        assert_eq!(release(b"Linux version "), None);
        assert!(!has_pvh_entry(&text));
        let note = b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0\xd8\x02\0\x01";
        assert!(has_pvh_entry(&[&text[..], note].concat()));
    }
}
