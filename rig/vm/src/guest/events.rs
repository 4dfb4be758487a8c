//! The guest's events: lines of JSON from an untrusted end.

use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::outcome::Result;
use nlrig_init::protocol::{Event, LINE_MAX_BYTES};

use super::log::Log;
use super::{loss, read_some};
use crate::outcome::Verdict;

/// A trial's events take no more than this on disk.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// Cuts a stream into events.
#[derive(Debug)]
pub struct Lines {
    source: UnixStream,
    log: Log,
    /// What has been read.
    bytes: Vec<u8>,
    /// How much of it was given out; it is let go when more is read, since a
    /// short line may be one of ten thousand.
    given: usize,
    /// How much of it is known to hold no end of a line.
    searched: usize,
}

impl Lines {
    /// Reads from `source`; every line is kept in the file `path`.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn new(source: UnixStream, path: &Path) -> Result<Lines> {
        let log = Log::create(path, FILE_MAX_BYTES)?;
        Ok(Lines { source, log, bytes: Vec::new(), given: 0, searched: 0 })
    }

    /// Keeps the lines from now on in another file.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn redirect(&mut self, path: &Path) -> Result<()> {
        self.log = Log::create(path, FILE_MAX_BYTES)?;
        Ok(())
    }

    /// Where to wait for more.
    pub fn source(&self) -> &UnixStream {
        &self.source
    }

    /// Takes what is there; false at the end.
    ///
    /// # Errors
    /// The connection broke.
    pub fn read(&mut self) -> Result<bool> {
        self.bytes.drain(..self.given);
        self.searched -= self.given;
        self.given = 0;
        Ok(read_some(&mut self.source, &mut self.bytes)?)
    }

    /// The next whole event among what was read.
    ///
    /// # Errors
    /// A [`VmFailure`](super::VmFailure) if a line is too long or is no event, which is
    /// said once: what comes after it is read all the same. The file cannot be
    /// written.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        let found = self.bytes[self.searched..].iter().position(|&byte| byte == b'\n');
        let Some(at) = found.map(|at| self.searched + at) else {
            self.searched = self.bytes.len();
            if self.bytes.len() - self.given > LINE_MAX_BYTES {
                // Who listens for the rest must not be told of this for ever.
                self.given = self.bytes.len();
                return Err(too_long());
            }
            return Ok(None);
        };
        let line = &self.bytes[self.given..=at];
        (self.given, self.searched) = (at + 1, at + 1);
        if line.len() > LINE_MAX_BYTES + 1 {
            return Err(too_long());
        }
        self.log.append(line)?;
        match serde_json::from_slice(line) {
            Ok(event) => Ok(Some(event)),
            Err(err) => Err(loss(Verdict::LostVm, format!("the guest sent no event: {err}"))),
        }
    }
}

fn too_long() -> crate::outcome::Error {
    loss(Verdict::LostVm, "the guest sent a line that is too long")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lines_of(bytes: &[u8]) -> (Lines, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let (mut guest, host) = UnixStream::pair().unwrap();
        let mut lines = Lines::new(host, &dir.path().join("events")).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || guest.write_all(bytes).unwrap());
            while lines.read().unwrap() {}
        });
        (lines, dir)
    }

    #[test]
    fn half_an_event_is_none() {
        let (mut lines, _dir) = lines_of(b"{\"event\":\"started\"}\n{\"event\":\"en");
        assert_eq!(lines.next_event().unwrap(), Some(Event::Started));
        assert_eq!(lines.next_event().unwrap(), None);
        assert_eq!(lines.next_event().unwrap(), None);
    }

    #[test]
    fn a_line_that_is_too_long_is_told_of_once() {
        let whole = [vec![b' '; LINE_MAX_BYTES + 1], b"\n{\"event\":\"end\"}\n".to_vec()].concat();
        let (mut lines, dir) = lines_of(&whole);
        assert!(lines.next_event().is_err());
        assert_eq!(lines.next_event().unwrap(), Some(Event::End));
        assert_eq!(std::fs::read(dir.path().join("events")).unwrap(), b"{\"event\":\"end\"}\n");
        let (mut lines, _dir) = lines_of(&whole[..=LINE_MAX_BYTES]);
        assert!(lines.next_event().is_err());
        assert_eq!(lines.next_event().unwrap(), None);
    }

    #[test]
    fn what_is_no_event_is_a_lost_machine() {
        let long = vec![b'x'; LINE_MAX_BYTES + 1];
        let deep = [vec![b'['; 100_000], b"\n".to_vec()].concat();
        for bytes in [&b"hello\n"[..], b"\xff\xfe\n", b"{\"event\":\"no such\"}\n", &deep, &long] {
            let (mut lines, _dir) = lines_of(bytes);
            let err = lines.next_event().unwrap_err();
            assert_eq!(err.vm_failure().unwrap().verdict, Verdict::LostVm);
        }
    }
}
