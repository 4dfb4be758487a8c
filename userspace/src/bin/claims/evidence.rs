//! Evidence: named values, each reported immediately, because the guest may
//! crash next.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::FromRawFd;
use std::thread;
use std::time::{Duration, Instant};

use nlrig_guest::protocol::WORKLOAD_FD;
use nlrig_netlink::Errno;
use serde_json::{Map, Value};

use crate::observe::{queued_bytes, state};

/// An error that prevents the test of a claim. It counts neither for nor
/// against the claim.
pub type BoxError = Box<dyn std::error::Error>;

/// The longest time PID 1 may take to forward a line.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time the host takes to read from a port while it is busy.
const HOST_READ_DELAY: Duration = Duration::from_millis(100);

/// The report descriptor.
pub struct Evidence {
    report: File,
}

impl Evidence {
    /// Creates the only instance of the process.
    pub fn new() -> Evidence {
        // SAFETY: PID 1 opened this descriptor, and nothing else in this
        // process uses it.
        Evidence { report: unsafe { File::from_raw_fd(WORKLOAD_FD) } }
    }

    /// Reports a value.
    pub fn note(&mut self, key: &str, value: impl Into<Value>) {
        let mut line = Map::new();
        line.insert(key.to_string(), value.into());
        // Errors are ignored: without the host, nothing receives the report.
        let _ = writeln!(self.report, "{}", Value::Object(line));
    }

    /// Waits until the host has received the evidence. Needed before a case
    /// crashes the guest, because PID 1 forwards the evidence and may be the
    /// first victim.
    ///
    /// # Errors
    /// PID 1 does not forward the evidence in time.
    pub fn deliver(&self) -> Result<(), BoxError> {
        let deadline = Instant::now() + FORWARD_TIMEOUT;
        // PID 1 sleeps after it has read everything.
        while queued_bytes(&self.report)? > 0 || state(1, 1)? != 'S' {
            if Instant::now() > deadline {
                return Err("timed out waiting for PID 1 to forward the evidence".into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        // The evidence is in the port's queue, which the host empties without
        // the guest's help.
        thread::sleep(HOST_READ_DELAY);
        Ok(())
    }

    /// Reports the result of a call: `ok`, or the name of the errno.
    pub fn outcome<T, E: Display>(&mut self, key: &str, result: &Result<T, E>) {
        match result {
            Ok(_) => self.note(key, "ok"),
            Err(err) => self.note(key, err.to_string()),
        }
    }

    /// Like [`Evidence::outcome`], for the standard library, whose errors do
    /// not display errno names.
    pub fn io_outcome<T>(&mut self, key: &str, result: &io::Result<T>) {
        let with_errno = result.as_ref().map_err(|err| Errno(err.raw_os_error().unwrap_or(0)));
        self.outcome(key, &with_errno);
    }
}
