//! Which files a confined process may open: Landlock rules.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, Scope, path_beneath_rules,
};
use nlrig_host::{Error, Result};

/// The newest version whose rights are handled; on an older kernel fewer are.
const VERSION: ABI = ABI::V6;
/// The first version that lets a process rename between folders.
pub(crate) const RENAMES_SINCE: i64 = 2;

/// Where libraries and QEMU's own data are on the distributions of the day.
const LIBRARIES: [&str; 12] = [
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/nix/store",
    "/gnu/store",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
];
/// QEMU's firmware, below `share` of its prefix.
const DATA: [&str; 5] = ["qemu", "qemu-kvm", "seabios", "seavgabios", "ipxe"];
/// Harmless devices, and the number of processors for the C library.
const SYSTEM: [&str; 4] = ["/dev/zero", "/dev/urandom", "/dev/random", "/sys/devices/system/cpu"];
/// Where the programs are that a wrapper script starts.
const PROGRAMS: [&str; 5] = ["/bin", "/usr/bin", "/usr/sbin", "/usr/libexec", "/usr/local/bin"];

/// What QEMU may open.
#[derive(Clone, Debug)]
pub(super) struct QemuFiles<'a> {
    /// The program.
    pub program: &'a Path,
    /// Whether the program starts others, as a script that wraps QEMU does.
    pub is_wrapper: bool,
    /// Open files that it may read: kernel and initramfs.
    pub readable: &'a [BorrowedFd<'a>],
    /// Devices that it may use: /dev/kvm.
    pub devices: &'a [&'a Path],
}

/// The version of the kernel's Landlock; 0 if it has none.
pub(crate) fn landlock_version() -> i64 {
    const CREATE_RULESET_VERSION: u32 = 1;
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag and no attributes it only returns a number.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0, CREATE_RULESET_VERSION)
    };
    version.max(0)
}

fn failed(err: impl std::fmt::Display) -> Error {
    Error::new(format!("cannot make Landlock rules: {err}"))
}

/// Everything is denied that a rule does not allow.
fn ruleset() -> Result<RulesetCreated> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(VERSION))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(VERSION)))
        .and_then(|rules| rules.scope(Scope::from_all(VERSION)))
        .and_then(Ruleset::create)
        .map_err(failed)
}

/// The rules of a QEMU; none if the kernel has no Landlock.
pub(super) fn qemu_ruleset(files: &QemuFiles<'_>) -> Result<Option<OwnedFd>> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let execute = read | AccessFs::Execute;
    let executable = executables(files.program);
    let prefix = files.program.parent().and_then(Path::parent);
    let own = prefix.into_iter().flat_map(|prefix| {
        DATA.iter()
            .map(|name| prefix.join("share").join(name))
            .chain(["lib", "lib64"].map(|name| prefix.join(name)))
            .collect::<Vec<_>>()
    });
    let data = DATA.iter().map(|name| Path::new("/usr/share").join(name));
    let of_libraries = if files.is_wrapper { execute } else { read };
    let mut rules = ruleset()?
        .add_rules(path_beneath_rules(LIBRARIES, of_libraries))
        .and_then(|rules| rules.add_rules(path_beneath_rules(own.chain(data), read)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(SYSTEM, read)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(executable, execute)))
        .and_then(|rules| {
            let access = AccessFs::ReadFile | AccessFs::WriteFile;
            rules.add_rules(path_beneath_rules(["/dev/null"], access))
        })
        .and_then(|rules| {
            let access = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
            rules.add_rules(path_beneath_rules(files.devices, access))
        })
        .map_err(failed)?;
    for file in files.readable {
        rules = rules.add_rule(PathBeneath::new(file, AccessFs::ReadFile)).map_err(failed)?;
    }
    if files.is_wrapper {
        rules = rules.add_rules(path_beneath_rules(PROGRAMS, execute)).map_err(failed)?;
    }
    Ok(rules.into())
}

/// The rules of a share's daemon: its folder and nothing else; none if the kernel
/// has no Landlock.
pub(crate) fn share_ruleset(folder: &Path, read_only: bool) -> Result<Option<OwnedFd>> {
    let all = AccessFs::from_all(VERSION) & !(AccessFs::Execute | AccessFs::IoctlDev);
    let access: BitFlags<AccessFs> = match read_only {
        true => AccessFs::ReadFile | AccessFs::ReadDir,
        false => all,
    };
    let folder = PathFd::new(folder).map_err(failed)?;
    let rule = PathBeneath::new(folder.as_fd(), access);
    Ok(ruleset()?.add_rule(rule).map_err(failed)?.into())
}

/// What the kernel executes for a program: the program, the loader of its
/// libraries, and the interpreter of a script with its own loader.
fn executables(program: &Path) -> Vec<PathBuf> {
    let mut found = vec![program.to_path_buf()];
    // A script, its interpreter, and that one's loader.
    for index in 0..2 {
        match found.get(index).and_then(|path| loader(path)) {
            Some(path) => found.push(path),
            None => break,
        }
    }
    found
}

/// Linkers put the program headers and the loader's name into the first page. QEMU
/// has 18 MiB: reading all of it is a measurable part of a boot.
const HEAD_BYTES: u64 = 64 << 10;

/// The interpreter of a script, or the loader of an ELF file.
fn loader(program: &Path) -> Option<PathBuf> {
    let mut image = Vec::new();
    File::open(program).ok()?.take(HEAD_BYTES).read_to_end(&mut image).ok()?;
    let path = match image.strip_prefix(b"#!") {
        Some(rest) => rest.split(|&byte| byte == b'\n').next()?.trim_ascii_start(),
        None => elf_interpreter(&image)?,
    };
    let end = path.iter().position(|byte| b" \t\r\0".contains(byte)).unwrap_or(path.len());
    Some(PathBuf::from(OsStr::from_bytes(&path[..end])))
}

/// The text of PT_INTERP in a 64-bit little-endian ELF file, per elf(5).
fn elf_interpreter(image: &[u8]) -> Option<&[u8]> {
    const PT_INTERP: u64 = 3;
    if !image.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let number = |at: usize, length: usize| {
        let bytes = image.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0_u64, |value, &byte| value << 8 | u64::from(byte)))
    };
    let size = |value: u64| usize::try_from(value).ok();
    let (headers, entry) = (size(number(0x20, 8)?)?, size(number(0x36, 2)?)?);
    let count = size(number(0x38, 2)?)?;
    (0..count).find_map(|index| {
        let header = headers.checked_add(index.checked_mul(entry)?)?;
        if number(header, 4)? != PT_INTERP {
            return None;
        }
        let start = size(number(header.checked_add(8)?, 8)?)?;
        let length = size(number(header.checked_add(0x20)?, 8)?)?;
        image.get(start..start.checked_add(length)?)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_script_is_executed_by_its_interpreter_and_that_by_its_loader() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        fs::write(&script, "#! /bin/sh -e\ntrue\n").unwrap();
        let found = executables(&script);
        assert_eq!(found[..2], [script, PathBuf::from("/bin/sh")]);
        assert!(found[2].to_string_lossy().contains("ld-"), "{found:?}");
    }

    #[test]
    fn a_damaged_elf_file_has_no_loader() {
        let image = fs::read("/proc/self/exe").unwrap();
        assert!(elf_interpreter(&image).unwrap().starts_with(b"/"));
        for length in [0, 5, 6, 0x39, 0x40, 0x100] {
            assert_eq!(elf_interpreter(&image[..length]), None, "{length}");
        }
        let mut endless = image[..0x1000].to_vec();
        endless[0x20..0x28].fill(0xff);
        assert_eq!(elf_interpreter(&endless), None);
    }
}
