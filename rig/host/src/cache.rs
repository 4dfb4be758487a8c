//! The build cache: a content-addressed store of build results.
//!
//! An entry is a folder named by the hash of its inputs. A build fills a folder
//! with another name, writes a checksum, and renames the folder when it is
//! complete, so an entry that exists is finished. The checksum detects later
//! damage; a damaged entry is rebuilt. There is one lock per entry, so two runs
//! share a build.

mod checksum;
mod key;

use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Context, Result, bail};
use serde::Serialize;
use sha2::{Digest, Sha256};

pub use self::key::{Key, hex, list_files, sha256};
use crate::{interrupt, ui};

/// The cache's folder.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// The kinds of entries; each has a folder.
pub const KINDS: [&str; 10] = [
    "busybox",
    "cargo",
    "config",
    "image",
    "kernel",
    "module",
    "programs",
    "reference",
    "sha256",
    "source",
];

/// The extension of a folder whose entry is still being built.
const PARTIAL: &str = "partial";
/// The marker file of a failed build, whose log is kept.
const FAILED: &str = "failed";
/// The age at which the folder of a failed build is removed.
const FAILED_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// A finished entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The entry's folder.
    pub dir: PathBuf,
    /// Whether the entry existed before the call.
    pub from_cache: bool,
    /// The hash that names the entry.
    pub key: String,
}

impl Cache {
    /// Opens the user's cache: `$NLRIG_CACHE`, `$XDG_CACHE_HOME/nlrig` or
    /// `~/.cache/nlrig`.
    ///
    /// # Errors
    /// The folder cannot be created or written.
    pub fn open() -> Result<Cache> {
        let of = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = match (of("NLRIG_CACHE"), of("XDG_CACHE_HOME"), of("HOME")) {
            (Some(root), _, _) => root,
            (None, Some(base), _) => base.join("nlrig"),
            (None, None, Some(home)) => home.join(".cache/nlrig"),
            (None, None, None) => bail!("no folder for the build cache: set NLRIG_CACHE or HOME"),
        };
        Cache::at(&root)
    }

    /// Opens the cache in the folder `root`.
    ///
    /// # Errors
    /// The folder cannot be created or written.
    pub fn at(root: &Path) -> Result<Cache> {
        let locks = root.join("lock");
        let hint = "the build cache is not writable; set NLRIG_CACHE to another folder";
        fs::create_dir_all(&locks)
            .with_context(|| format!("cannot create {}: {hint}", locks.display()))?;
        let root = root.canonicalize()?;
        nix::unistd::access(&root, nix::unistd::AccessFlags::W_OK)
            .with_context(|| format!("{}: {hint}", root.display()))?;
        // make(1) has no quoting for blanks and colons in a path, and the kernel's
        // Makefile rejects them.
        if root.to_string_lossy().contains([' ', '\t', '\n', ':']) {
            bail!(
                "cannot build kernels in {}: the path has a blank or a colon; set NLRIG_CACHE to another folder",
                root.display()
            );
        }
        Ok(Cache { root })
    }

    /// The cache's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns an entry if it exists and is intact; builds nothing.
    pub fn find(&self, kind: &str, key: Key) -> Option<Entry> {
        let key = key.finish();
        let dir = self.path(kind, &key);
        let intact = dir.is_dir() && checksum::damage(&dir).is_ok_and(|damage| damage.is_none());
        intact.then_some(Entry { dir, from_cache: true, key })
    }

    fn path(&self, kind: &str, key: &str) -> PathBuf {
        // Half of the hash is unique enough, and keeps paths short.
        self.root.join(kind).join(&key[..key.len().min(32)])
    }

    /// Returns an entry, which `make` builds if it does not exist.
    ///
    /// # Errors
    /// The error of `make`; no entry exists then.
    pub fn entry(
        &self,
        kind: &str,
        key: Key,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Entry> {
        debug_assert!(cfg!(test) || KINDS.contains(&kind), "{kind}");
        let key = key.finish();
        let dir = self.path(kind, &key);
        if dir.is_dir() && checksum::damage(&dir)?.is_none() {
            return Ok(Entry { dir, from_cache: true, key });
        }
        let _lock = self.lock(&lock_name(kind, &key), kind)?;
        if dir.is_dir() {
            // Another run may have built the entry while this one waited for the lock.
            let Some(damage) = checksum::damage(&dir)? else {
                return Ok(Entry { dir, from_cache: true, key });
            };
            ui::status(&format!("rebuilding {}: the entry is damaged: {damage}", dir.display()));
            fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        let partial = dir.with_extension(PARTIAL);
        if partial.exists() {
            fs::remove_dir_all(&partial)
                .with_context(|| format!("cannot remove {}", partial.display()))?;
        }
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot create {}", partial.display()))?;
        if let Err(err) = make(&partial).and_then(|()| checksum::write_to(&partial)) {
            if err.is_interruption() {
                let _ = fs::remove_dir_all(&partial);
            } else {
                // The error names the build log in this folder.
                let _ = fs::write(partial.join(FAILED), "");
            }
            return Err(err);
        }
        fs::rename(&partial, &dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Entry { dir, from_cache: false, key })
    }

    /// Waits for a lock that all runs of this user share, and takes it.
    ///
    /// # Errors
    /// The lock file cannot be created, or the wait was interrupted.
    pub fn lock(&self, name: &str, what: &str) -> Result<File> {
        let path = self.lock_path(name);
        let file =
            File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut reported = false;
        loop {
            interrupt::check()?;
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut reported, true) {
                        ui::status(&format!("{what}: waiting for another run that builds it"));
                    }
                    std::thread::sleep(interrupt::POLL);
                }
                Err(TryLockError::Error(err)) => {
                    return Err(err).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
        }
    }

    /// Removes the partial entries of killed runs, and those of failed builds
    /// after a day. Errors are ignored: the next run tries again.
    pub fn gc(&self) {
        for kind in KINDS {
            for path in list(&self.root.join(kind)).unwrap_or_default() {
                if path.extension().is_none_or(|extension| extension != PARTIAL) {
                    continue;
                }
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                // A run that still builds this entry holds the lock.
                let Ok(lock) = File::create(self.lock_path(&lock_name(kind, &name))) else {
                    continue;
                };
                if lock.try_lock().is_err() {
                    continue;
                }
                let is_recent = fs::metadata(path.join(FAILED))
                    .and_then(|meta| meta.modified())
                    .is_ok_and(|time| time.elapsed().is_ok_and(|age| age < FAILED_KEPT));
                if !is_recent {
                    ui::detail(&format!("removing {}: left by a killed run", path.display()));
                    let _ = fs::remove_dir_all(&path);
                }
            }
        }
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.root.join("lock").join(name)
    }

    /// Removes all entries and stored values, after running builds have ended.
    /// Other files in the folder stay.
    ///
    /// # Errors
    /// A file or folder cannot be removed.
    pub fn clear(&self) -> Result<()> {
        for lock in list(&self.root.join("lock"))? {
            let name = lock.file_name().unwrap_or_default().to_string_lossy().into_owned();
            drop(self.lock(&name, "the cache")?);
        }
        for kind in KINDS {
            let folder = self.root.join(kind);
            if folder.is_dir() {
                fs::remove_dir_all(&folder)
                    .with_context(|| format!("cannot remove {}", folder.display()))?;
                ui::status(&format!("removed {}", folder.display()));
            }
        }
        for file in list(&self.root)? {
            if file.extension().is_some_and(|kind| kind == "json") && file.is_file() {
                fs::remove_file(&file)
                    .with_context(|| format!("cannot remove {}", file.display()))?;
            }
        }
        Ok(())
    }

    /// Returns the SHA-256 of a file, from the cache if size and times are the same.
    ///
    /// Hashing a kernel's source at every start would take longer than the start.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn file_sha256(&self, path: &Path) -> Result<String> {
        let cannot = || format!("cannot read {}", path.display());
        let path = path.canonicalize().with_context(cannot)?;
        let meta = fs::metadata(&path).with_context(cannot)?;
        let identity = Key::new()
            .add("path", path.as_os_str().as_encoded_bytes())
            .add("size", meta.len().to_le_bytes())
            .add("modified", format!("{}.{}", meta.mtime(), meta.mtime_nsec()))
            .add("changed", format!("{}.{}", meta.ctime(), meta.ctime_nsec()))
            .add("inode", meta.ino().to_le_bytes());
        let entry = self.entry("sha256", identity, |dir| {
            let mut hash = Sha256::new();
            let mut file = File::open(&path).with_context(cannot)?;
            let mut chunk = vec![0; 1 << 20];
            loop {
                interrupt::check()?;
                match file.read(&mut chunk).with_context(cannot)? {
                    0 => break,
                    length => hash.update(&chunk[..length]),
                }
            }
            write(&dir.join("sha256"), hex(&hash.finalize()))
        })?;
        Ok(fs::read_to_string(entry.dir.join("sha256"))?)
    }

    /// Stores a small value under a name, in place of the former one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn store(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let path = self.root.join(name);
        let mut file = tempfile::NamedTempFile::new_in(&self.root)?;
        serde_json::to_writer_pretty(&mut file, value)?;
        file.persist(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }

    /// Loads a stored value; `None` if the file is missing or does not parse.
    pub fn load<T: serde::de::DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&fs::read(self.root.join(name)).ok()?).ok()
    }
}

fn lock_name(kind: &str, key: &str) -> String {
    format!("{kind}-{}", key.get(..32).unwrap_or(key))
}

/// Reads a file; the error names the path.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file; the error names the path.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// The paths of a folder's entries.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot read {}", folder.display());
    let entries = fs::read_dir(folder).with_context(cannot)?;
    entries.map(|entry| Ok(entry.with_context(cannot)?.path())).collect()
}

#[cfg(test)]
mod tests;
