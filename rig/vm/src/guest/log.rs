//! A file of a trial's folder that takes so much and no more.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use nlrig_host::Context;
use nlrig_host::Result;

/// A file of limited size.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
    room_bytes: u64,
}

impl Log {
    /// Makes the file, or empties it.
    ///
    /// # Errors
    /// It cannot be made; the message names it.
    pub fn create(path: &Path, max_bytes: u64) -> Result<Log> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Log { file, path: path.to_path_buf(), room_bytes: max_bytes })
    }

    /// Appends this; from what does not fit any more on, nothing.
    ///
    /// # Errors
    /// It cannot be written; the message names the file.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(room) = self.room_bytes.checked_sub(bytes.len() as u64) else {
            self.room_bytes = 0;
            return Ok(());
        };
        self.room_bytes = room;
        self.file.write_all(bytes).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out_with_all_that_follows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::create(&path, 10).unwrap();
        for part in [&b"12345"[..], b"6789", b"too long", b"0"] {
            log.append(part).unwrap();
        }
        assert_eq!(std::fs::read(path).unwrap(), b"123456789");
    }

    #[test]
    fn a_full_disk_is_named() {
        let mut log = Log::create(Path::new("/dev/full"), 10).unwrap();
        let err = log.append(b"1").unwrap_err();
        assert!(format!("{err:#}").contains("/dev/full: No space left"), "{err:#}");
    }
}
