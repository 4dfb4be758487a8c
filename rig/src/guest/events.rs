//! The guest's events: lines of JSON from an untrusted end.

use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::Result;
use nlrig_guest::protocol::{Event, LINE_MAX_BYTES};

use super::log::Log;
use super::{loss, read_some};
use crate::report::Verdict;

/// A trial's events take no more than this on disk.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// Cuts a stream into events.
#[derive(Debug)]
pub struct Lines {
    source: UnixStream,
    log: Log,
    /// What has been read and not given out.
    bytes: Vec<u8>,
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
        Ok(Lines { source, log, bytes: Vec::new(), searched: 0 })
    }

    /// Keeps the lines from now on in another file.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn turn_to(&mut self, path: &Path) -> Result<()> {
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
        Ok(read_some(&mut self.source, &mut self.bytes)?)
    }

    /// The next whole event among what was read.
    ///
    /// # Errors
    /// A [`Loss`](super::Loss) if a line is too long or is no event; the file
    /// cannot be written.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        let found = self.bytes[self.searched..].iter().position(|&byte| byte == b'\n');
        let Some(at) = found.map(|at| self.searched + at) else {
            self.searched = self.bytes.len();
            if self.bytes.len() > LINE_MAX_BYTES {
                return Err(loss(Verdict::LostVm, "the guest sent a line that is too long"));
            }
            return Ok(None);
        };
        let line: Vec<u8> = self.bytes.drain(..=at).collect();
        self.searched = 0;
        self.log.append(&line)?;
        match serde_json::from_slice(&line) {
            Ok(event) => Ok(Some(event)),
            Err(err) => Err(loss(Verdict::LostVm, format!("the guest sent no event: {err}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::Loss;
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
    fn what_is_no_event_is_a_lost_machine() {
        let long = vec![b'x'; LINE_MAX_BYTES + 1];
        let deep = [vec![b'['; 100_000], b"\n".to_vec()].concat();
        for bytes in [&b"hello\n"[..], b"\xff\xfe\n", b"{\"event\":\"no such\"}\n", &deep, &long] {
            let (mut lines, _dir) = lines_of(bytes);
            let err = lines.next_event().unwrap_err();
            assert_eq!(err.downcast_ref::<Loss>().unwrap().verdict, Verdict::LostVm);
        }
    }
}
