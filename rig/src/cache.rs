//! The build cache: what took long to make, found again by what it was made of.
//!
//! An entry is a folder named by the hash of everything that went into it. It
//! is made under another name and renamed when it is whole, so that an entry
//! that exists is finished; a lock an entry makes two runs share one build.

use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{interrupt, say};

/// The cache's folder.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// The kinds of entries there are; a folder each.
pub const KINDS: [&str; 8] =
    ["busybox", "config", "image", "kernel", "module", "sha256", "source", "yardstick"];

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

/// The hash of what goes into an entry: labelled parts in their order.
#[derive(Clone, Debug, Default)]
pub struct Key(Sha256);

impl Key {
    /// Begins with nothing.
    pub fn new() -> Key {
        Key::default()
    }

    /// Adds one part. Label and length keep two parts from running together.
    pub fn add(mut self, label: &str, part: impl AsRef<[u8]>) -> Key {
        let part = part.as_ref();
        self.0.update(format!("{label} {}\n", part.len()));
        self.0.update(part);
        self
    }

    /// Adds the name and content of every file below a folder, git's own left
    /// out.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn add_tree(self, label: &str, folder: &Path) -> Result<Key> {
        let mut files = Vec::new();
        list_files(folder, &mut files)?;
        files.sort();
        let mut key = self.add("tree", label);
        for file in files {
            interrupt::check()?;
            let name = file.strip_prefix(folder).unwrap_or(&file).to_string_lossy();
            // A link may point to a folder, or to nothing: what counts is where.
            key = if file.is_symlink() {
                key.add(&name, fs::read_link(&file)?.as_os_str().as_encoded_bytes())
            } else {
                key.add(&name, read(&file)?)
            };
        }
        Ok(key)
    }

    /// The hash in hexadecimal.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
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
        Ok(Cache { root })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// An entry if it is there, without making it.
    pub fn find(&self, kind: &str, key: Key) -> Option<Entry> {
        let key = key.finish();
        let dir = self.path(kind, &key);
        dir.is_dir().then_some(Entry { dir, from_cache: true, key })
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
        if dir.is_dir() {
            return Ok(Entry { dir, from_cache: true, key });
        }
        let _lock = self.lock(&format!("{kind}-{}", &key[..32]), kind)?;
        if dir.is_dir() {
            // Another run made it while this one waited for the lock.
            return Ok(Entry { dir, from_cache: true, key });
        }
        let partial = dir.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial)
                .with_context(|| format!("cannot remove {}", partial.display()))?;
        }
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot make {}", partial.display()))?;
        // What a failed build leaves is not removed: its log is what the error
        // points to. Nothing takes a `.partial` folder for an entry.
        make(&partial)?;
        fs::rename(&partial, &dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Entry { dir, from_cache: false, key })
    }

    /// Takes a lock that other runs of this user respect, and waits for it.
    fn lock(&self, name: &str, what: &str) -> Result<File> {
        let path = self.root.join("lock").join(name);
        let file =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let mut said = false;
        loop {
            interrupt::check()?;
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut said, true) {
                        say::status(&format!("{what}: another run is making it; waiting"));
                    }
                    std::thread::sleep(interrupt::POLL);
                }
                Err(TryLockError::Error(err)) => {
                    return Err(err).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
        }
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
                say::status(&format!("removed {}", folder.display()));
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

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of a text or a small file's content, in hexadecimal.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex(&Sha256::digest(bytes.as_ref()))
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

fn list_files(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
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

/// What is in a folder.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot read {}", folder.display());
    let entries = fs::read_dir(folder).with_context(cannot)?;
    entries.map(|entry| Ok(entry.with_context(cannot)?.path())).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    fn key(text: &str) -> Key {
        Key::new().add("test", text)
    }

    #[test]
    fn an_entry_is_made_once() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path()).unwrap();
        let make = |dir: &Path| write(&dir.join("file"), "content");
        let first = cache.entry("thing", key("a"), make).unwrap();
        assert!(!first.from_cache && first.dir.join("file").is_file());
        let second = cache.entry("thing", key("a"), |_| panic!("made twice")).unwrap();
        assert!(second.from_cache);
        assert_eq!(first.dir, second.dir);
        assert!(!cache.entry("thing", key("b"), make).unwrap().from_cache);
    }

    #[test]
    fn a_failed_or_interrupted_entry_does_not_look_finished() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path()).unwrap();
        let half = |dir: &Path| {
            write(&dir.join("half"), "content")?;
            bail!("disk full")
        };
        assert!(cache.entry("thing", key("a"), half).is_err());
        let whole = cache.entry("thing", key("a"), |dir| write(&dir.join("file"), "")).unwrap();
        assert!(!whole.from_cache);
        assert!(!whole.dir.join("half").exists(), "what was left before is gone");
    }

    #[test]
    fn two_runs_share_one_build() {
        let root = tempfile::tempdir().unwrap();
        let made = AtomicU32::new(0);
        let start = std::time::Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let cache = Cache::at(root.path()).unwrap();
                    cache
                        .entry("thing", key("a"), |dir| {
                            made.fetch_add(1, Ordering::SeqCst);
                            std::thread::sleep(Duration::from_millis(200));
                            write(&dir.join("file"), "")
                        })
                        .unwrap();
                });
            }
        });
        assert_eq!(made.load(Ordering::SeqCst), 1);
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_changed_file_has_another_hash() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(&root.path().join("cache")).unwrap();
        let file = root.path().join("file");
        write(&file, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(cache.file_sha256(&file).unwrap(), abc);
        write(&file, "abcd").unwrap();
        assert_ne!(cache.file_sha256(&file).unwrap(), abc);
    }

    #[test]
    fn clearing_leaves_what_is_not_the_caches() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path()).unwrap();
        cache.entry("image", key("a"), |dir| write(&dir.join("file"), "")).unwrap();
        cache.remember("kvm-i386.json", &1).unwrap();
        write(&root.path().join("mine"), "").unwrap();
        cache.clear().unwrap();
        assert!(cache.find("image", key("a")).is_none());
        assert_eq!(cache.recall::<u32>("kvm-i386.json"), None);
        assert!(root.path().join("mine").is_file());
    }

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
