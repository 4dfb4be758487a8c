//! Temporary folders, and the end of those that a killed run left.
//!
//! A folder belongs to the process that holds its lock. The kernel lets go of
//! the lock with the process, however that ends, so whoever can take it may
//! remove the folder: the next run does.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::{Context, Result};
use tempfile::TempDir;

use crate::ui;

/// How all of them begin: short, because sockets go there, and the path of a
/// UNIX socket has 108 bytes at most.
const PREFIX: &str = ".nlrig-";
/// The file in each of them that says whose it is: a folder of the user's own
/// is not taken for one, whatever it is called.
const MARK: &str = ".scratch";

/// A temporary folder for this user alone, removed with its owner.
#[derive(Debug)]
pub struct Scratch {
    dir: TempDir,
    _lock: File,
}

impl Scratch {
    /// Makes one below `$TMPDIR` or `/tmp`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new() -> Result<Scratch> {
        let base = std::env::temp_dir();
        let cannot = || {
            format!("cannot make a folder in {}; TMPDIR names another place for it", base.display())
        };
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&base)
            .with_context(cannot)?;
        let lock = open(dir.path()).with_context(cannot)?;
        // No sweep touches it before it has its mark, so the lock is free.
        lock.try_lock().map_err(std::io::Error::from).with_context(cannot)?;
        fs::write(dir.path().join(MARK), "").with_context(cannot)?;
        Ok(Scratch { dir, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes the folders of runs that are no more. What cannot be removed is left
/// for the next sweep.
pub fn sweep() {
    sweep_in(&std::env::temp_dir());
}

fn sweep_in(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        // Not a link, and nobody else's: /tmp is everybody's.
        let Ok(folder) = open(&path) else { continue };
        let ours = folder
            .metadata()
            .is_ok_and(|meta| meta.uid() == nix::unistd::geteuid().as_raw() && meta.is_dir());
        let marked = fs::symlink_metadata(path.join(MARK)).is_ok_and(|meta| meta.is_file());
        if ours && marked && folder.try_lock().is_ok() {
            ui::detail(&format!("removing {}, which a killed run left", path.display()));
            let _ = fs::remove_dir_all(&path);
        }
    }
}

fn open(folder: &Path) -> std::io::Result<File> {
    File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_holds_is_swept() {
        let base = tempfile::tempdir().unwrap();
        let held = base.path().join(".nlrig-held");
        let left = base.path().join(".nlrig-left");
        let unmarked = base.path().join(".nlrig-own");
        let others = base.path().join("nlrig-others");
        for folder in [&held, &left, &unmarked, &others] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join(MARK), "").unwrap();
        }
        fs::remove_file(unmarked.join(MARK)).unwrap();
        std::os::unix::fs::symlink(&others, base.path().join(".nlrig-link")).unwrap();
        let lock = open(&held).unwrap();
        lock.lock().unwrap();
        sweep_in(base.path());
        assert!(held.exists() && !left.exists());
        assert!(unmarked.exists() && others.join(MARK).exists());
        drop(lock);
        sweep_in(base.path());
        assert!(!held.exists());
    }

    #[test]
    fn a_folder_goes_with_its_owner_and_not_before() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_path_buf();
        sweep();
        assert!(path.is_dir());
        drop(scratch);
        assert!(!path.exists());
    }
}
