//! Whether an entry of the cache still is what it was when it was finished.
//!
//! The seal is a hash over names and contents of all files. Reading a kernel's
//! build at every start would take longer than the start, so what was read once
//! is remembered by sizes and times: as long as these stay, so does the verdict.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::Result;

use super::{Key, key, write};
use crate::interrupt;

/// The hash of the content, in the entry's folder.
const SEAL: &str = ".seal";
/// What the files were like when their content was last found to be right.
const VERIFIED: &str = ".verified";

/// Seals a folder that is finished.
///
/// # Errors
/// It cannot be read or written.
pub fn seal(dir: &Path) -> Result<()> {
    let files = files(dir)?;
    write(&dir.join(SEAL), content(dir, &files)?)?;
    write(&dir.join(VERIFIED), appearance(dir, &files)?)
}

/// What is wrong with a sealed folder, if something is.
///
/// # Errors
/// Only an interruption: a file that cannot be read is damage.
pub fn damage(dir: &Path) -> Result<Option<String>> {
    let sealed = match fs::read_to_string(dir.join(SEAL)) {
        Ok(sealed) => sealed,
        Err(err) => return Ok(Some(format!("its seal cannot be read: {err}"))),
    };
    let look = || -> Result<Option<String>> {
        let files = files(dir)?;
        let now = appearance(dir, &files)?;
        if fs::read_to_string(dir.join(VERIFIED)).is_ok_and(|verified| verified == now) {
            return Ok(None);
        }
        if content(dir, &files)? != sealed {
            return Ok(Some("its files are not what they were when it was made".to_string()));
        }
        // Not remembered is read again: no more than a loss of time.
        let _ = write(&dir.join(VERIFIED), now);
        Ok(None)
    };
    match look() {
        Err(err) if err.is_interruption() => Err(err),
        Err(err) => Ok(Some(format!("{err:#}"))),
        found => found,
    }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    key::list_files(dir, &mut files)?;
    files.retain(|file| *file != dir.join(SEAL) && *file != dir.join(VERIFIED));
    files.sort();
    Ok(files)
}

fn content(dir: &Path, files: &[PathBuf]) -> Result<String> {
    let mut key = Key::new().add_files(dir, files)?;
    for file in files {
        // Whether it can be executed is of its content too.
        key = key.add("mode", format!("{:o}", fs::symlink_metadata(file)?.mode() & 0o111));
    }
    Ok(key.finish())
}

/// Sizes and times: whoever changes a file changes these too.
fn appearance(dir: &Path, files: &[PathBuf]) -> Result<String> {
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

    fn sealed() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        write(&dir.path().join("folder/file"), "content").unwrap();
        std::os::unix::fs::symlink("folder/file", dir.path().join("link")).unwrap();
        seal(dir.path()).unwrap();
        dir
    }

    #[test]
    fn an_entry_that_was_let_be_is_whole() {
        let dir = sealed();
        assert_eq!(damage(dir.path()).unwrap(), None);
        // A copy has other times and the same content.
        fs::remove_file(dir.path().join(VERIFIED)).unwrap();
        assert_eq!(damage(dir.path()).unwrap(), None);
        assert!(dir.path().join(VERIFIED).is_file(), "it is remembered");
    }

    #[test]
    fn every_kind_of_damage_is_seen() {
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
            |dir| fs::remove_file(dir.join(SEAL)).unwrap(),
        ];
        for (number, harm) in cases.into_iter().enumerate() {
            let dir = sealed();
            harm(dir.path());
            assert!(damage(dir.path()).unwrap().is_some(), "case {number}");
        }
    }
}
