//! The key of a cache entry: a hash of all inputs of the build.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;
use sha2::{Digest, Sha256};

use super::{list, read};
use crate::interrupt;

/// The key of an entry: a hash of labelled parts, in order.
#[derive(Clone, Debug, Default)]
pub struct Key(Sha256);

impl Key {
    /// Makes a key without parts.
    pub fn new() -> Key {
        Key::default()
    }

    /// Adds one part. Label and length are hashed too, so parts do not run together.
    pub fn add(mut self, label: &str, part: impl AsRef<[u8]>) -> Key {
        let part = part.as_ref();
        self.0.update(format!("{label} {}\n", part.len()));
        self.0.update(part);
        self
    }

    /// Adds the name and content of each file below a folder, without `.git`.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn add_tree(self, label: &str, folder: &Path) -> Result<Key> {
        let mut files = Vec::new();
        list_files(folder, &mut files)?;
        files.sort();
        self.add("tree", label).add_files(folder, &files)
    }

    /// Adds the names and contents of files of a folder, in the given order.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn add_files(self, folder: &Path, files: &[PathBuf]) -> Result<Key> {
        let mut key = self;
        for file in files {
            interrupt::check()?;
            let name = file.strip_prefix(folder).unwrap_or(file).to_string_lossy();
            // Hash a link's target path: the target may be a folder or missing.
            key = if file.is_symlink() {
                key.add(&name, fs::read_link(file)?.as_os_str().as_encoded_bytes())
            } else {
                key.add(&name, read(file)?)
            };
        }
        Ok(key)
    }

    /// Returns the hash in hexadecimal.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// Formats bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the SHA-256 of bytes in memory, in hexadecimal.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex(&Sha256::digest(bytes.as_ref()))
}

/// Appends each file and link below a folder, without `.git`, to `into`.
///
/// # Errors
/// A folder cannot be read.
pub fn list_files(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    for path in list(folder)? {
        if path.is_dir() && !path.is_symlink() {
            if !path.ends_with(".git") {
                list_files(&path, into)?;
            }
        } else {
            into.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::write;

    #[test]
    fn a_tree_with_links_has_a_hash() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("../somewhere", root.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/", root.path().join("folder")).unwrap();
        let hash = || Key::new().add_tree("x", root.path()).unwrap().finish();
        let before = hash();
        write(&root.path().join("file"), "new").unwrap();
        assert_ne!(before, hash());
    }

    #[test]
    fn parts_of_a_key_do_not_run_together() {
        let ab_c = Key::new().add("x", "ab").add("x", "c").finish();
        let a_bc = Key::new().add("x", "a").add("x", "bc").finish();
        assert_ne!(ab_c, a_bc);
    }
}
