//! Detects cache entries that changed after they were finished.
//!
//! The checksum is a hash over the names and contents of all files. Reading a
//! whole kernel build at every start would take longer than the start, so a
//! check also stores the sizes and times of the files, and the next check reads
//! the contents only if these differ.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::Result;

use super::{Key, key, write};
use crate::interrupt;

/// The file with the checksum, in the entry's folder. The name stays `.seal`, so
/// that entries of older revisions are still valid.
const CHECKSUM: &str = ".seal";
/// The file with the metadata of the last check that found no damage.
const VERIFIED: &str = ".verified";

/// Writes the checksum of a finished folder.
///
/// # Errors
/// The folder cannot be read or written.
pub fn write_to(dir: &Path) -> Result<()> {
    let files = files(dir)?;
    write(&dir.join(CHECKSUM), content(dir, &files)?)?;
    write(&dir.join(VERIFIED), metadata(dir, &files)?)
}

/// Returns a description of the damage to an entry; `None` if it is intact.
///
/// # Errors
/// Only an interruption: an unreadable file counts as damage.
pub fn damage(dir: &Path) -> Result<Option<String>> {
    let expected = match fs::read_to_string(dir.join(CHECKSUM)) {
        Ok(expected) => expected,
        Err(err) => return Ok(Some(format!("cannot read the checksum: {err}"))),
    };
    let check = || -> Result<Option<String>> {
        let files = files(dir)?;
        let now = metadata(dir, &files)?;
        if fs::read_to_string(dir.join(VERIFIED)).is_ok_and(|verified| verified == now) {
            return Ok(None);
        }
        if content(dir, &files)? != expected {
            return Ok(Some("the checksum of its files does not match".to_string()));
        }
        // If this fails, the next check reads the contents again.
        let _ = write(&dir.join(VERIFIED), now);
        Ok(None)
    };
    match check() {
        Err(err) if err.is_interruption() => Err(err),
        Err(err) => Ok(Some(format!("{err:#}"))),
        outcome => outcome,
    }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    key::list_files(dir, &mut files)?;
    files.retain(|file| *file != dir.join(CHECKSUM) && *file != dir.join(VERIFIED));
    files.sort();
    Ok(files)
}

fn content(dir: &Path, files: &[PathBuf]) -> Result<String> {
    let mut key = Key::new().add_files(dir, files)?;
    for file in files {
        // The executable bits are part of the content.
        key = key.add("mode", format!("{:o}", fs::symlink_metadata(file)?.mode() & 0o111));
    }
    Ok(key.finish())
}

/// Sizes, times and inodes, which differ if a file was changed.
fn metadata(dir: &Path, files: &[PathBuf]) -> Result<String> {
    let mut key = Key::new();
    for file in files {
        interrupt::check()?;
        let meta = fs::symlink_metadata(file)?;
        let name = file.strip_prefix(dir).unwrap_or(file).as_os_str();
        key = key.add("name", name.as_encoded_bytes()).add(
            "look",
            format!(
                "{} {} {}.{} {}.{}",
                meta.ino(),
                meta.len(),
                meta.mtime(),
                meta.mtime_nsec(),
                meta.ctime(),
                meta.ctime_nsec()
            ),
        );
    }
    Ok(key.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished_entry() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        write(&dir.path().join("folder/file"), "content").unwrap();
        std::os::unix::fs::symlink("folder/file", dir.path().join("link")).unwrap();
        write_to(dir.path()).unwrap();
        dir
    }

    #[test]
    fn an_unchanged_entry_is_intact() {
        let dir = finished_entry();
        assert_eq!(damage(dir.path()).unwrap(), None);
        // A copy has other times and the same content.
        fs::remove_file(dir.path().join(VERIFIED)).unwrap();
        assert_eq!(damage(dir.path()).unwrap(), None);
        assert!(dir.path().join(VERIFIED).is_file(), "the check is stored");
    }

    #[test]
    fn every_kind_of_damage_is_detected() {
        let cases: [fn(&Path); 7] = [
            |dir| {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                fs::set_permissions(dir.join("folder/file"), mode).unwrap();
            },
            |dir| write(&dir.join("folder/file"), "cut").unwrap(),
            |dir| write(&dir.join("folder/file"), "CONTENT").unwrap(),
            |dir| fs::remove_file(dir.join("folder/file")).unwrap(),
            |dir| write(&dir.join("further"), "").unwrap(),
            |dir| fs::remove_file(dir.join("link")).unwrap(),
            |dir| fs::remove_file(dir.join(CHECKSUM)).unwrap(),
        ];
        for (number, harm) in cases.into_iter().enumerate() {
            let dir = finished_entry();
            harm(dir.path());
            assert!(damage(dir.path()).unwrap().is_some(), "case {number}");
        }
    }
}
