//! Temporary folders, removed even if their run was killed.
//!
//! A process holds a lock on each of its folders. The kernel releases the lock
//! when the process ends, for whatever reason. A folder without a lock is left
//! over, and the next run removes it.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::{Context, Result};
use tempfile::TempDir;

use crate::ui;

/// The prefix of each folder's name. It is short because sockets go into the
/// folder, and the path of a UNIX socket has at most 108 bytes.
const PREFIX: &str = ".nlrig-";
/// The marker file in each folder. A user's own folder with the same prefix does
/// not have it and is never removed.
const MARK: &str = ".scratch";

/// A temporary folder with mode 0700, removed on drop.
#[derive(Debug)]
pub struct Scratch {
    dir: TempDir,
    _lock: File,
}

impl Scratch {
    /// Creates a folder below `$TMPDIR` or `/tmp`.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn new() -> Result<Scratch> {
        let base = std::env::temp_dir();
        let cannot = || {
            format!("cannot create a folder in {}; set TMPDIR to another folder", base.display())
        };
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&base)
            .with_context(cannot)?;
        let lock = open(dir.path()).with_context(cannot)?;
        // The lock is free: gc() ignores a folder without the marker file.
        lock.try_lock().map_err(std::io::Error::from).with_context(cannot)?;
        fs::write(dir.path().join(MARK), "").with_context(cannot)?;
        Ok(Scratch { dir, _lock: lock })
    }

    /// Returns the folder's path.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes the folders of runs that have ended. Errors are ignored: the next run
/// tries again.
pub fn gc() {
    gc_in(&std::env::temp_dir());
}

fn gc_in(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        // Skip links and folders of other users: /tmp is world-writable.
        let Ok(folder) = open(&path) else { continue };
        let ours = folder
            .metadata()
            .is_ok_and(|meta| meta.uid() == nix::unistd::geteuid().as_raw() && meta.is_dir());
        let marked = fs::symlink_metadata(path.join(MARK)).is_ok_and(|meta| meta.is_file());
        if ours && marked && folder.try_lock().is_ok() {
            ui::detail(&format!("removing {}: left by a killed run", path.display()));
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
    fn gc_removes_only_marked_folders_without_a_lock() {
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
        gc_in(base.path());
        assert!(held.exists() && !left.exists());
        assert!(unmarked.exists() && others.join(MARK).exists());
        drop(lock);
        gc_in(base.path());
        assert!(!held.exists());
    }

    #[test]
    fn a_folder_is_removed_on_drop_and_not_before() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_path_buf();
        gc();
        assert!(path.is_dir());
        drop(scratch);
        assert!(!path.exists());
    }
}
