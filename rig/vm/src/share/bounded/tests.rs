//! A guest's requests, without a guest: what virtiofsd would make of them in a
//! temporary folder, and what `Bounded` lets through.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Mutex;

use nix::sys::stat::{Mode, umask};
use tempfile::TempDir;
use virtiofsd::oslib::WritevFlags;
use virtiofsd::passthrough::read_only::PassthroughFsRo;
use virtiofsd::passthrough::{Config, PassthroughFs};

use super::*;

const ROOT: u64 = virtiofsd::filesystem::ROOT_ID;
const AMPLE: Bounds = Bounds { bytes: 1 << 20, entries: 100 };
const BAD: &[&CStr] = &[c"", c".", c"..", c"/", c"../up", c"folder/file", c"file/"];

/// What a guest writes.
struct Text(Vec<u8>);

impl ZeroCopyReader for Text {
    fn write_to_file_at(
        &mut self,
        f: &File,
        count: usize,
        off: u64,
        _: Option<WritevFlags>,
    ) -> io::Result<usize> {
        f.write_at(&self.0[..count], off)
    }
}

/// Where a guest reads to.
struct Page(Vec<u8>);

impl ZeroCopyWriter for &mut Page {
    fn read_from_file_at(
        &mut self,
        f: &File,
        count: usize,
        off: u64,
        _: Option<virtiofsd::oslib::ReadvFlags>,
    ) -> io::Result<usize> {
        self.0.resize(count, 0);
        let length = f.read_at(&mut self.0, off)?;
        self.0.truncate(length);
        Ok(length)
    }
}

/// A share of a folder with `folder/file` in it.
struct Shared {
    fs: Bounded<PassthroughFs>,
    dir: TempDir,
}

fn config(dir: &Path) -> Config {
    Config { root_dir: dir.to_str().unwrap().to_string(), ..Config::default() }
}

/// virtiofsd clears the umask of its process, which is also that of other tests.
fn keep_umask<T>(make: impl FnOnce() -> T) -> T {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap();
    let before = umask(Mode::from_bits_truncate(0o077));
    let made = make();
    umask(before);
    made
}

fn shared(bounds: Bounds) -> Shared {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    fs::write(dir.path().join("folder/file"), "text").unwrap();
    let fs = keep_umask(|| PassthroughFs::new(config(dir.path()))).unwrap();
    let fs = Bounded::new(fs, bounds);
    fs.init(FsOptions::empty()).unwrap();
    Shared { fs, dir }
}

/// A caller whose requests are carried out as this process.
fn root() -> Context {
    Context { uid: 0.into(), gid: 0.into(), pid: 1 }
}

fn none() -> Extensions {
    Extensions::default()
}

impl Shared {
    /// Makes a file to write and read.
    fn create(&self, name: &CStr) -> io::Result<(u64, u64)> {
        let flags = libc::O_RDWR as u32;
        self.fs
            .create(root(), ROOT, name, 0o600, false, flags, 0, none())
            .map(|(entry, handle, _)| (entry.inode, handle.unwrap()))
    }

    fn write(&self, (inode, handle): (u64, u64), size: u32, offset: u64) -> io::Result<usize> {
        let text = Text(vec![b'x'; size as usize]);
        self.fs.write(root(), inode, handle, text, size, offset, None, false, false, 0)
    }

    /// Sets a length, and a mode with it.
    fn truncate(&self, (inode, _): (u64, u64), size: u64) -> io::Result<()> {
        let attr = fuse::SetattrIn { size, mode: 0o700, ..Default::default() };
        let valid = SetattrValid::SIZE | SetattrValid::MODE;
        self.fs.setattr(root(), inode, attr, None, valid).map(drop)
    }

    fn allocate(&self, (inode, handle): (u64, u64), mode: i32, length: u64) -> io::Result<()> {
        self.fs.fallocate(root(), inode, handle, mode as u32, 0, length)
    }

    fn copy(&self, from: (u64, u64), to: (u64, u64), offset: u64, len: u64) -> io::Result<usize> {
        self.fs.copyfilerange(root(), from.0, from.1, 0, to.0, to.1, offset, len, 0)
    }

    fn length(&self, name: &str) -> u64 {
        fs::metadata(self.dir.path().join(name)).unwrap().len()
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> =
            names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// A way to make an entry of a name, and the error if it fails.
type Way = (&'static str, fn(&Shared, &CStr) -> Option<i32>);

/// All ways there are.
const WAYS: [Way; 5] = [
    ("create", |shared, name| errno(shared.create(name))),
    ("mkdir", |shared, name| errno(shared.fs.mkdir(root(), ROOT, name, 0o700, 0, none()))),
    ("mknod", |shared, name| {
        errno(shared.fs.mknod(root(), ROOT, name, libc::S_IFREG | 0o600, 0, 0, none()))
    }),
    ("symlink", |shared, name| errno(shared.fs.symlink(root(), c"../target", ROOT, name, none()))),
    ("link", |shared, name| {
        let folder = shared.fs.lookup(root(), ROOT, c"folder").unwrap().inode;
        let file = shared.fs.lookup(root(), folder, c"file").unwrap().inode;
        errno(shared.fs.link(root(), file, ROOT, name))
    }),
];

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().map(|err| err.raw_os_error().unwrap())
}

#[test]
fn a_bad_name_is_refused_wherever_one_is_taken() {
    let shared = shared(AMPLE);
    let (fs, good) = (&shared.fs, c"folder");
    for name in BAD {
        let mut refused = vec![
            ("lookup", errno(fs.lookup(root(), ROOT, name))),
            ("unlink", errno(fs.unlink(root(), ROOT, name))),
            ("rmdir", errno(fs.rmdir(root(), ROOT, name))),
            ("rename from", errno(fs.rename(root(), ROOT, name, ROOT, c"new", 0))),
            ("rename to", errno(fs.rename(root(), ROOT, good, ROOT, name, 0))),
        ];
        refused.extend(WAYS.map(|(operation, make)| (operation, make(&shared, name))));
        for (operation, error) in refused {
            assert_eq!(error, Some(libc::EINVAL), "{operation} of {name:?}");
        }
    }
    assert_eq!(shared.names(), ["folder"]);
    assert_eq!(fs.entries.0.load(Ordering::Relaxed), AMPLE.entries, "a bad name costs nothing");
}

#[test]
fn names_that_only_look_bad_are_good() {
    let shared = shared(AMPLE);
    for name in [c"...", c"..a", c".a", c" ", c"a\\b", c"\xff"] {
        assert_eq!(plain(name).ok(), Some(()), "{name:?}");
    }
    shared.create(c"...").unwrap();
    assert_eq!(shared.names(), ["...", "folder"]);
}

#[test]
fn a_read_only_share_refuses_bad_names_too() {
    let dir = tempfile::tempdir().unwrap();
    let inner = keep_umask(|| PassthroughFsRo::new(config(dir.path()))).unwrap();
    let fs = Bounded::new(inner, AMPLE);
    fs.init(FsOptions::empty()).unwrap();
    assert_eq!(errno(fs.lookup(root(), ROOT, c"..")), Some(libc::EINVAL));
    assert_eq!(errno(fs.mkdir(root(), ROOT, c"new", 0o700, 0, none())), Some(libc::EROFS));
}

#[test]
fn ordinary_use_works() {
    let shared = shared(AMPLE);
    let fs = &shared.fs;
    let file = shared.create(c"file").unwrap();
    assert_eq!(shared.write(file, 5, 0).unwrap(), 5);
    let mut page = Page(Vec::new());
    assert_eq!(fs.read(root(), file.0, file.1, &mut page, 100, 0, None, 0).unwrap(), 5);
    assert_eq!(page.0, b"xxxxx");
    fs.rename(root(), ROOT, c"file", ROOT, c"other", 0).unwrap();
    assert_eq!(fs::read(shared.dir.path().join("other")).unwrap(), b"xxxxx");
    fs.unlink(root(), ROOT, c"other").unwrap();
    fs.release(root(), file.0, 0, file.1, false, false, None).unwrap();
    fs.mkdir(root(), ROOT, c"new", 0o700, 0, none()).unwrap();
    fs.rmdir(root(), ROOT, c"new").unwrap();
    assert_eq!(shared.names(), ["folder"]);
    let (handle, _) = fs.opendir(root(), ROOT, 0).unwrap();
    let mut names = fs.readdir(root(), ROOT, handle.unwrap(), 4096, 0).unwrap();
    assert!(virtiofsd::filesystem::DirectoryIterator::next(&mut names).is_some());
}

#[test]
fn every_way_to_make_an_entry_pays_for_one() {
    for (operation, make) in WAYS {
        let shared = shared(Bounds { entries: 1, ..AMPLE });
        assert_eq!(make(&shared, c"first"), None, "{operation}");
        assert_eq!(make(&shared, c"second"), Some(libc::ENOSPC), "{operation}");
        assert_eq!(shared.names(), ["first", "folder"], "{operation}");
    }
}

#[test]
fn what_is_deleted_or_fails_is_not_given_back() {
    let shared = shared(Bounds { entries: 2, bytes: 10 });
    let file = shared.create(c"file").unwrap();
    shared.write(file, 10, 0).unwrap();
    shared.fs.unlink(root(), ROOT, c"file").unwrap();
    assert_eq!(errno(shared.write(file, 1, 0)), Some(libc::ENOSPC));
    let mkdir = |name| errno(shared.fs.mkdir(root(), ROOT, name, 0o700, 0, none()));
    assert_eq!(mkdir(c"folder"), Some(libc::EEXIST));
    assert_eq!(mkdir(c"new"), Some(libc::ENOSPC));
    // Another mount is no new share.
    shared.fs.destroy();
    shared.fs.init(FsOptions::empty()).unwrap();
    assert_eq!(mkdir(c"new"), Some(libc::ENOSPC));
}

#[test]
fn a_rename_that_leaves_a_node_pays_for_it() {
    let shared = shared(Bounds { entries: 0, ..AMPLE });
    let rename = |flags| errno(shared.fs.rename(root(), ROOT, c"folder", ROOT, c"other", flags));
    assert_eq!(rename(libc::RENAME_WHITEOUT), Some(libc::ENOSPC));
    assert_eq!(shared.names(), ["folder"]);
    assert_eq!(rename(0), None);
}

#[test]
fn a_write_beyond_the_budget_changes_nothing() {
    let shared = shared(Bounds { bytes: 100, ..AMPLE });
    let file = shared.create(c"file").unwrap();
    shared.write(file, 60, 0).unwrap();
    assert_eq!(errno(shared.write(file, 41, 60)), Some(libc::ENOSPC));
    assert_eq!(shared.length("file"), 60);
    // Overwriting counts, and all that is left can be had.
    assert_eq!(shared.write(file, 40, 0).unwrap(), 40);
    assert_eq!(errno(shared.write(file, 1, 0)), Some(libc::ENOSPC));
    assert_eq!(shared.length("file"), 60);
}

#[test]
fn a_hole_counts_as_if_it_were_written() {
    let shared = shared(Bounds { bytes: 100, ..AMPLE });
    let file = shared.create(c"file").unwrap();
    for offset in [100, 1 << 40, u64::MAX] {
        assert_eq!(errno(shared.write(file, 1, offset)), Some(libc::ENOSPC), "{offset}");
    }
    assert_eq!(shared.length("file"), 0);
    shared.write(file, 1, 99).unwrap();
    assert_eq!(errno(shared.write(file, 1, 0)), Some(libc::ENOSPC));
}

#[test]
fn a_truncate_pays_for_what_the_file_grows_by() {
    let shared = shared(Bounds { bytes: 100, ..AMPLE });
    let file = shared.create(c"file").unwrap();
    shared.truncate(file, 60).unwrap();
    let path = shared.dir.path().join("file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(errno(shared.truncate(file, 101)), Some(libc::ENOSPC));
    assert_eq!(shared.length("file"), 60);
    let mode = fs::metadata(&path).unwrap().mode() & 0o777;
    assert_eq!(mode, 0o600, "what came with it is not done either");
    shared.truncate(file, 100).unwrap();
    shared.truncate(file, 0).unwrap();
    assert_eq!(errno(shared.truncate(file, 1)), Some(libc::ENOSPC));
}

#[test]
fn room_that_is_reserved_is_paid_for() {
    let shared = shared(Bounds { bytes: 1 << 16, ..AMPLE });
    let file = shared.create(c"file").unwrap();
    let (keep, punch) = (libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_PUNCH_HOLE);
    for mode in [0, keep, libc::FALLOC_FL_ZERO_RANGE, libc::FALLOC_FL_INSERT_RANGE, punch, 1 << 20]
    {
        let error = errno(shared.allocate(file, mode, (1 << 16) + 1));
        assert_eq!(error, Some(libc::ENOSPC), "mode {mode}");
    }
    let on_disk = fs::metadata(shared.dir.path().join("file")).unwrap();
    assert_eq!((on_disk.len(), on_disk.blocks()), (0, 0));
    shared.allocate(file, 0, 1 << 16).unwrap();
    assert_eq!(shared.length("file"), 1 << 16);
    assert_eq!(errno(shared.allocate(file, keep, 1)), Some(libc::ENOSPC));
    shared.allocate(file, punch | keep, 1 << 16).unwrap();
}

#[test]
fn a_copy_pays_for_what_there_is_to_copy() {
    let shared = shared(Bounds { bytes: 100, ..AMPLE });
    let (from, to) = (shared.create(c"from").unwrap(), shared.create(c"to").unwrap());
    shared.write(from, 40, 0).unwrap();
    assert_eq!(shared.copy(from, to, 0, 1 << 30).unwrap(), 40);
    assert_eq!(errno(shared.copy(from, to, 40, 1 << 30)), Some(libc::ENOSPC));
    assert_eq!(errno(shared.copy(from, to, 1 << 30, 1)), Some(libc::ENOSPC));
    assert_eq!(shared.length("to"), 40);
    assert_eq!(shared.copy(from, to, 40, 20).unwrap(), 20);
    assert_eq!(shared.length("to"), 60);
}

#[test]
fn an_attribute_is_paid_for() {
    let shared = shared(Bounds { bytes: 9, ..AMPLE });
    let set = |value: &[u8]| {
        errno(shared.fs.setxattr(root(), ROOT, c"user.a", value, 0, SetxattrFlags::empty()))
    };
    assert_eq!(set(b"text"), Some(libc::ENOSPC));
    // This configuration of virtiofsd, which is the daemon's, has none.
    assert_eq!(set(b"txt"), Some(libc::ENOSYS));
    assert_eq!(shared.fs.bytes.0.load(Ordering::Relaxed), 0);
}
