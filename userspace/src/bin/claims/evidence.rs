//! What a row reports: values by name, each at once, because the machine may not
//! live much longer.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::FromRawFd;

use nlrig_guest::protocol::WORKLOAD_FD;
use nlrig_netlink::Errno;
use serde_json::{Map, Value};

/// Why a claim could not be tried: no evidence, and no finding.
pub type Trouble = Box<dyn std::error::Error>;

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
