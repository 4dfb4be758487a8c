//! Source files that are built: carried in the program, or in a folder of the
//! user's.

use std::fs;
use std::path::{Path, PathBuf};

use include_dir::Dir;
use nlrig_host::cache::{self, Key, list_files};
use nlrig_host::{Context, Result, interrupt};

/// The data of this crate: fragments, recipes, and the source of PID 1.
pub(crate) static DATA: Dir<'static> = include_dir::include_dir!("$CARGO_MANIFEST_DIR/data");

/// A text of this crate's data.
///
/// # Errors
/// There is no such file; the message names it.
pub(crate) fn data(path: &str) -> Result<&'static str> {
    let file = DATA.get_file(path).with_context(|| format!("there is no {path}"))?;
    file.contents_utf8().with_context(|| format!("{path} is not UTF-8"))
}

/// A tree of source files.
#[derive(Clone, Debug)]
pub enum Tree {
    /// Carried in the program. Paths in it begin with the folder's own.
    Embedded(&'static Dir<'static>),
    /// A folder on this host, without what is hidden in it and what a build has
    /// left there.
    Folder(PathBuf),
}

impl Tree {
    /// Adds every file's name and content to a key.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn add_to(&self, key: Key, label: &str) -> Result<Key> {
        match self {
            Tree::Embedded(dir) => {
                let mut files = Vec::new();
                embedded_files(dir, dir.path(), &mut files);
                let key = key.add("embedded tree", label);
                Ok(files
                    .iter()
                    .fold(key, |key, (name, content)| key.add(&name.to_string_lossy(), content)))
            }
            Tree::Folder(folder) => {
                let mut key = key.add("folder", label);
                for path in source_files(folder)? {
                    let name = path.strip_prefix(folder).unwrap_or(&path);
                    key = key.add(&name.to_string_lossy(), cache::read(&path)?);
                }
                Ok(key)
            }
        }
    }

    /// Writes the tree into a folder: only files that differ, so that make and
    /// cargo see what changed. Files of an embedded tree that are gone from it
    /// are removed.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn write_to(&self, target: &Path) -> Result<()> {
        let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
        match self {
            Tree::Embedded(dir) => {
                let mut embedded = Vec::new();
                embedded_files(dir, dir.path(), &mut embedded);
                files.extend(embedded.into_iter().map(|(name, content)| (name, content.to_vec())));
            }
            Tree::Folder(folder) => {
                for path in source_files(folder)? {
                    let name = path.strip_prefix(folder).unwrap_or(&path).to_path_buf();
                    files.push((name, cache::read(&path)?));
                }
            }
        }
        let mut left = Vec::new();
        if target.is_dir() {
            list_files(target, &mut left)?;
        }
        for path in left {
            let name = path.strip_prefix(target).unwrap_or(&path);
            if !files.iter().any(|(kept, _)| kept == name) {
                fs::remove_file(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        for (name, content) in files {
            write_if_changed(&target.join(name), &content)?;
        }
        Ok(())
    }
}

/// The files below a folder in the order of their names, links to files among
/// them. Hidden files and folders are left out, and what Kbuild makes.
fn source_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let cannot = || format!("cannot read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(cannot)? {
        interrupt::check()?;
        let entry = entry.with_context(cannot)?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if entry.file_type().with_context(cannot)?.is_dir() {
            files.extend(source_files(&path)?);
        } else if path.is_file() && !is_leftover(&name) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a build of a module makes a file of this name.
fn is_leftover(name: &str) -> bool {
    const ENDINGS: [&str; 4] = [".o", ".ko", ".mod", ".mod.c"];
    ["Module.symvers", "modules.order"].contains(&name)
        || ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Writes a file unless it has this content: its time stamp is what make and
/// cargo go by.
///
/// # Errors
/// It cannot be written.
pub(crate) fn write_if_changed(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    cache::write(path, content)
}

/// The files below an embedded folder by their paths relative to `base`, in the
/// order of their names.
fn embedded_files(
    dir: &'static Dir<'static>,
    base: &Path,
    into: &mut Vec<(PathBuf, &'static [u8])>,
) {
    for file in dir.files() {
        let name = file.path().strip_prefix(base).unwrap_or(file.path()).to_path_buf();
        into.push((name, file.contents()));
    }
    for child in dir.dirs() {
        embedded_files(child, base, into);
    }
    into.sort();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_and_what_a_build_has_left_is_not_copied() {
        let from = tempfile::tempdir().unwrap();
        let sources = ["Makefile", "hello.c", "include/hello nl.h"];
        let others =
            [".git/HEAD", ".hello.ko.cmd", "hello.o", "hello.ko", "hello.mod.c", "Module.symvers"];
        for file in sources.iter().chain(&others) {
            let path = from.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        std::os::unix::fs::symlink("gone", from.path().join("dangling.h")).unwrap();
        let tree = Tree::Folder(from.path().to_path_buf());
        let hash = || tree.add_to(Key::new(), "x").unwrap().finish();
        let before = hash();
        fs::write(from.path().join("hello.o"), "again").unwrap();
        assert_eq!(hash(), before, "a leftover does not change the key");
        let to = tempfile::tempdir().unwrap();
        tree.write_to(to.path()).unwrap();
        let mut copied = Vec::new();
        list_files(to.path(), &mut copied).unwrap();
        copied.sort();
        let expected: Vec<_> = sources.iter().map(|file| to.path().join(file)).collect();
        assert_eq!(copied, expected);
    }

    #[test]
    fn a_tree_is_written_whole_and_only_where_it_differs() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::Embedded(DATA.get_dir("crates/init").unwrap());
        tree.write_to(dir.path()).unwrap();
        let main = dir.path().join("main.rs");
        let before = fs::metadata(&main).unwrap().modified().unwrap();
        fs::write(dir.path().join("stale.rs"), "").unwrap();
        tree.write_to(dir.path()).unwrap();
        assert_eq!(fs::metadata(&main).unwrap().modified().unwrap(), before);
        assert!(!dir.path().join("stale.rs").exists());
        let hash = |tree: &Tree| tree.add_to(Key::new(), "x").unwrap().finish();
        assert_eq!(hash(&tree), hash(&tree));
        assert_ne!(hash(&tree), hash(&Tree::Embedded(DATA.get_dir("images").unwrap())));
    }
}
