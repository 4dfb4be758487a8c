//! What a row reports: values by name, each at once, because the machine may not
//! live much longer.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::FromRawFd;
use std::thread;
use std::time::{Duration, Instant};

use nlrig_guest::protocol::WORKLOAD_FD;
use nlrig_netlink::Errno;
use serde_json::{Map, Value};

use crate::observe::{state, waiting};

/// Why a claim could not be tried: no evidence, and no finding.
pub type Trouble = Box<dyn std::error::Error>;

/// How long PID 1 may take to pass on a line.
const PASSED_ON_LIMIT: Duration = Duration::from_secs(5);
/// How long the host's side of a port takes at most, the machine being busy.
const TAKEN_BY_HOST: Duration = Duration::from_millis(100);

/// Where evidence goes.
pub struct Evidence {
    report: File,
}

impl Evidence {
    /// For the one process that reports.
    pub fn new() -> Evidence {
        // SAFETY: PID 1 opened this descriptor for us and nobody else in this
        // process uses it.
        Evidence { report: unsafe { File::from_raw_fd(WORKLOAD_FD) } }
    }

    /// Reports a value.
    pub fn note(&mut self, key: &str, value: impl Into<Value>) {
        let mut line = Map::new();
        line.insert(key.to_string(), value.into());
        // Without the host nobody is left to be told of it.
        let _ = writeln!(self.report, "{}", Value::Object(line));
    }

    /// Waits until the host has what was reported. For who breaks the machine
    /// next: PID 1 passes it on, and may be the first that the break hits.
    ///
    /// # Errors
    /// PID 1 does not pass it on.
    pub fn deliver(&self) -> Result<(), Trouble> {
        let deadline = Instant::now() + PASSED_ON_LIMIT;
        // It has taken all, and waits for more.
        while waiting(&self.report)? > 0 || state(1, 1)? != 'S' {
            if Instant::now() > deadline {
                return Err("PID 1 does not pass on what was reported".into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        // It is in the queue of the port, which the host empties by itself.
        thread::sleep(TAKEN_BY_HOST);
        Ok(())
    }

    /// Reports how a call ended: `ok`, or the name of its error.
    pub fn outcome<T, E: Display>(&mut self, key: &str, result: &Result<T, E>) {
        match result {
            Ok(_) => self.note(key, "ok"),
            Err(err) => self.note(key, err.to_string()),
        }
    }

    /// As [`Evidence::outcome`], for calls of the standard library, whose errors
    /// have no such names.
    pub fn io_outcome<T>(&mut self, key: &str, result: &io::Result<T>) {
        let named = result.as_ref().map_err(|err| Errno(err.raw_os_error().unwrap_or(0)));
        self.outcome(key, &named);
    }
}
