//! The build cache: what took long to make, found again by what it was made of.
//!
//! An entry is a folder named by the hash of everything that went into it. It
//! is made under another name, sealed, and renamed when it is whole, so that an
//! entry that exists is finished, and one that was damaged later is seen and
//! made anew; a lock an entry makes two runs share one build.

mod key;
mod seal;

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

/// The kinds of entries there are; a folder each.
pub const KINDS: [&str; 10] = [
    "busybox",
    "cargo",
    "config",
    "image",
    "kernel",
    "module",
    "programs",
    "sha256",
    "source",
    "yardstick",
];

/// How the folder of an entry in the making ends.
const PARTIAL: &str = "partial";
/// The file in such a folder that says that its log is worth keeping.
const FAILED: &str = "failed";
/// How long what a failed build left is kept.
const FAILED_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// A finished entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its folder.
    pub dir: PathBuf,
    /// Whether it was there before.
    pub from_cache: bool,
    /// The hash that names it.
    pub key: String,
}

impl Cache {
    /// The user's cache: `$NLRIG_CACHE`, `$XDG_CACHE_HOME/nlrig` or
    /// `~/.cache/nlrig`.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub fn open() -> Result<Cache> {
        let of = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = match (of("NLRIG_CACHE"), of("XDG_CACHE_HOME"), of("HOME")) {
            (Some(root), _, _) => root,
            (None, Some(base), _) => base.join("nlrig"),
            (None, None, Some(home)) => home.join(".cache/nlrig"),
            (None, None, None) => bail!("no place for the build cache: set NLRIG_CACHE or HOME"),
        };
        Cache::at(&root)
    }

    /// The cache in this folder.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub fn at(root: &Path) -> Result<Cache> {
        let locks = root.join("lock");
        let hint = "the build cache cannot be written; NLRIG_CACHE names another folder";
        fs::create_dir_all(&locks)
            .with_context(|| format!("cannot make {}: {hint}", locks.display()))?;
        let root = root.canonicalize()?;
        nix::unistd::access(&root, nix::unistd::AccessFlags::W_OK)
            .with_context(|| format!("{}: {hint}", root.display()))?;
        // make(1) cannot be told of a path with blanks or colons, and the
        // kernel's own Makefile refuses them.
        if root.to_string_lossy().contains([' ', '\t', '\n', ':']) {
            bail!(
                "kernels cannot be built in {}, because of the blank or colon in its path; NLRIG_CACHE names another folder",
                root.display()
            );
        }
        Ok(Cache { root })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// An entry if it is there and whole, without making it.
    pub fn find(&self, kind: &str, key: Key) -> Option<Entry> {
        let key = key.finish();
        let dir = self.path(kind, &key);
        let whole = dir.is_dir() && seal::damage(&dir).is_ok_and(|damage| damage.is_none());
        whole.then_some(Entry { dir, from_cache: true, key })
    }

    fn path(&self, kind: &str, key: &str) -> PathBuf {
        // Half of the hash is enough for a name, and keeps paths short.
        self.root.join(kind).join(&key[..key.len().min(32)])
    }

    /// Finds an entry, or makes it: `make` fills the folder it is given.
    ///
    /// # Errors
    /// What `make` failed with; nothing is left then.
    pub fn entry(
        &self,
        kind: &str,
        key: Key,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Entry> {
        debug_assert!(cfg!(test) || KINDS.contains(&kind), "{kind}");
        let key = key.finish();
        let dir = self.path(kind, &key);
        if dir.is_dir() && seal::damage(&dir)?.is_none() {
            return Ok(Entry { dir, from_cache: true, key });
        }
        let _lock = self.lock(&lock_name(kind, &key), kind)?;
        if dir.is_dir() {
            // Another run may have made it while this one waited for the lock.
            let Some(damage) = seal::damage(&dir)? else {
                return Ok(Entry { dir, from_cache: true, key });
            };
            ui::status(&format!("{} is damaged and made anew: {damage}", dir.display()));
            fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        let partial = dir.with_extension(PARTIAL);
        if partial.exists() {
            fs::remove_dir_all(&partial)
                .with_context(|| format!("cannot remove {}", partial.display()))?;
        }
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot make {}", partial.display()))?;
        if let Err(err) = make(&partial).and_then(|()| seal::seal(&partial)) {
            if err.is_interruption() {
                let _ = fs::remove_dir_all(&partial);
            } else {
                // Its log is what the error points to.
                let _ = fs::write(partial.join(FAILED), "");
            }
            return Err(err);
        }
        fs::rename(&partial, &dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Entry { dir, from_cache: false, key })
    }

    /// Takes a lock that other runs of this user respect, and waits for it.
    ///
    /// # Errors
    /// The lock's file cannot be made; the wait was interrupted.
    pub fn lock(&self, name: &str, what: &str) -> Result<File> {
        let path = self.lock_path(name);
        let file =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let mut said = false;
        loop {
            interrupt::check()?;
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut said, true) {
                        ui::status(&format!("{what}: another run is making it; waiting"));
                    }
                    std::thread::sleep(interrupt::POLL);
                }
                Err(TryLockError::Error(err)) => {
                    return Err(err).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
        }
    }

    /// Removes what a killed run left half-made, and after a day what a failed
    /// one did. What cannot be removed is left for the next sweep.
    pub fn sweep(&self) {
        for kind in KINDS {
            for path in list(&self.root.join(kind)).unwrap_or_default() {
                if path.extension().is_none_or(|extension| extension != PARTIAL) {
                    continue;
                }
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                // Who makes it holds the lock.
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
                    ui::detail(&format!("removing {}, which a killed run left", path.display()));
                    let _ = fs::remove_dir_all(&path);
                }
            }
        }
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.root.join("lock").join(name)
    }

    /// Removes every entry and memory, and nothing else that may be in the
    /// folder. Waits for builds that are under way.
    ///
    /// # Errors
    /// Something cannot be removed.
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

    /// The SHA-256 of a file, remembered by its size and times: hashing a
    /// kernel's source at every start would take longer than the start.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn file_sha256(&self, path: &Path) -> Result<String> {
        let missing = || format!("cannot read {}", path.display());
        let path = path.canonicalize().with_context(missing)?;
        let meta = fs::metadata(&path).with_context(missing)?;
        let identity = Key::new()
            .add("path", path.as_os_str().as_encoded_bytes())
            .add("size", meta.len().to_le_bytes())
            .add("modified", format!("{}.{}", meta.mtime(), meta.mtime_nsec()))
            .add("changed", format!("{}.{}", meta.ctime(), meta.ctime_nsec()))
            .add("inode", meta.ino().to_le_bytes());
        let entry = self.entry("sha256", identity, |dir| {
            let mut hash = Sha256::new();
            let mut file = File::open(&path).with_context(missing)?;
            let mut chunk = vec![0; 1 << 20];
            loop {
                interrupt::check()?;
                match file.read(&mut chunk).with_context(missing)? {
                    0 => break,
                    length => hash.update(&chunk[..length]),
                }
            }
            write(&dir.join("sha256"), hex(&hash.finalize()))
        })?;
        Ok(fs::read_to_string(entry.dir.join("sha256"))?)
    }

    /// Remembers a small value under a name; unlike an entry it may change.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn remember(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let path = self.root.join(name);
        let mut file = tempfile::NamedTempFile::new_in(&self.root)?;
        serde_json::to_writer_pretty(&mut file, value)?;
        file.persist(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }

    /// A remembered value, if it is there and can be understood.
    pub fn recall<T: serde::de::DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&fs::read(self.root.join(name)).ok()?).ok()
    }
}

fn lock_name(kind: &str, key: &str) -> String {
    format!("{kind}-{}", key.get(..32).unwrap_or(key))
}

/// Reads a file; the error names it.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file; the error names it.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// What is in a folder.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot read {}", folder.display());
    let entries = fs::read_dir(folder).with_context(cannot)?;
    entries.map(|entry| Ok(entry.with_context(cannot)?.path())).collect()
}

#[cfg(test)]
mod tests;
