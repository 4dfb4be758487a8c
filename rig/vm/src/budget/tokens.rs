//! Tokens: bytes of a file, each locked by at most one.
//!
//! The locks are those of open file descriptions (fcntl(2), F_OFD_SETLK), so
//! whoever opens a file for itself excludes all others, be they processes or
//! threads of its own. The bytes need not exist: it does no harm that others
//! truncate the file.

use std::fs::{File, TryLockError};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nlrig_host::{Context, Result};

/// An open file description of a file of tokens, and those locked through it.
#[derive(Debug)]
pub struct Tokens {
    file: File,
    path: PathBuf,
}

impl Tokens {
    /// Opens a file of tokens, and makes it if there is none.
    pub fn open(folder: &Path, name: &str) -> Result<Tokens> {
        let path = folder.join(name);
        Ok(Tokens { file: open(&path)?, path })
    }

    /// So many tokens that nobody has, of this total; none if there are fewer.
    pub fn find(&self, total: u64, wanted: u64) -> Result<Option<Vec<Range<u64>>>> {
        let (mut found, mut from, mut left) = (Vec::new(), 0, wanted);
        while left > 0 && from < total {
            let free = self.first_free(from..total)?;
            if free.is_empty() {
                break;
            }
            let part = free.start..free.end.min(free.start + left);
            left -= part.end - part.start;
            from = free.end;
            found.push(part);
        }
        Ok((left == 0).then_some(found))
    }

    /// The first tokens of a range that nobody has; empty at its end if there
    /// are none.
    fn first_free(&self, range: Range<u64>) -> Result<Range<u64>> {
        let mut free = range.clone();
        // The kernel names any of the locks in the way, not the first.
        while !free.is_empty()
            && let Some(taken) = self.taken(&free)?
        {
            if taken.start <= free.start {
                free = taken.end.min(range.end)..range.end;
            } else {
                free.end = taken.start;
            }
        }
        Ok(free)
    }

    /// Some tokens that others have locked and that are not all out of range.
    pub fn taken(&self, range: &Range<u64>) -> Result<Option<Range<u64>>> {
        let mut lock = request(libc::F_WRLCK, range);
        fcntl(&self.file, FcntlArg::F_OFD_GETLK(&mut lock)).with_context(|| self.trouble())?;
        let (start, length) = (lock.l_start as u64, lock.l_len as u64);
        // Length 0 means up to the end, wherever that is.
        let end = if length == 0 { u64::MAX } else { start + length };
        Ok((i32::from(lock.l_type) != libc::F_UNLCK).then_some(start..end))
    }

    /// Whether all of these were free and are locked now.
    pub fn lock(&self, parts: &[Range<u64>]) -> Result<bool> {
        for part in parts {
            match fcntl(&self.file, FcntlArg::F_OFD_SETLK(&request(libc::F_WRLCK, part))) {
                Ok(_) => {}
                Err(Errno::EAGAIN | Errno::EACCES) => return Ok(false),
                Err(err) => return Err(err).with_context(|| self.trouble()),
            }
        }
        Ok(true)
    }

    /// Gives all back.
    pub fn unlock(&self) {
        let _ = fcntl(&self.file, FcntlArg::F_OFD_SETLK(&request(libc::F_UNLCK, &(0..0))));
    }

    fn trouble(&self) -> String {
        format!(
            "cannot lock bytes of {}; NLRIG_CACHE names a folder in another file system",
            self.path.display()
        )
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        // A child that another thread is forking right now has the description
        // too, until it execs: closing alone might be too late.
        self.unlock();
    }
}

/// A lock as the kernel wants it told; 0..0 is the whole file.
fn request(kind: i32, range: &Range<u64>) -> libc::flock {
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: range.start as i64,
        l_len: (range.end - range.start) as i64,
        l_pid: 0,
    }
}

/// The right to look for tokens. One run at a time has it, so that what it finds
/// free stays free until it has locked it, and no two have half each.
pub struct Turn {
    file: File,
    path: PathBuf,
    mine: bool,
}

impl Turn {
    /// Opens the file of turns, and makes it if there is none.
    pub fn open(folder: &Path, name: &str) -> Result<Turn> {
        let path = folder.join(name);
        Ok(Turn { file: open(&path)?, path, mine: false })
    }

    /// Whether the right is this run's; it stays so until it is dropped.
    pub fn has_come(&mut self) -> Result<bool> {
        if !self.mine {
            self.mine = match self.file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(err)) => {
                    return Err(err)
                        .with_context(|| format!("cannot lock {}", self.path.display()));
                }
            };
        }
        Ok(self.mine)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// Opens a file of locks, for its owner only: who can lock can starve.
fn open(path: &Path) -> Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).with_context(|| format!("cannot open {}", path.display()))
}
