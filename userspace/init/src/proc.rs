//! Parsers of `/proc` that PID 1 and the workloads share.

use std::{fs, io};

/// The number of tasks and the last task id assigned, from `0.00 0.00 0.00 1/58
/// 77`.
///
/// # Errors
/// /proc/loadavg cannot be read or parsed.
pub fn loadavg() -> io::Result<(u64, u64)> {
    const PATH: &str = "/proc/loadavg";
    let text = fs::read_to_string(PATH)?;
    let parse = || {
        let mut words = text.split_whitespace().skip(3);
        let tasks = words.next()?.split_once('/')?.1.parse().ok()?;
        Some((tasks, words.next()?.parse().ok()?))
    };
    parse().ok_or_else(|| io::Error::other(format!("{PATH}: unknown format")))
}
