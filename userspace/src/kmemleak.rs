//! kmemleak: the kernel's search for unreferenced memory
//! (`CONFIG_DEBUG_KMEMLEAK`).

use std::fs;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use nix::mount::{MsFlags, mount};

const DEBUGFS: &str = "/sys/kernel/debug";
const FILE: &str = "/sys/kernel/debug/kmemleak";
/// kmemleak does not report younger objects: MSECS_MIN_AGE in mm/kmemleak.c.
const MIN_AGE: Duration = Duration::from_millis(5500);
/// Lines of the report to return: one or two objects.
const LINES_MAX: usize = 40;

/// The result of a kmemleak scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaks {
    /// Unreferenced objects.
    pub objects: usize,
    /// The first objects, with the call traces of their allocation.
    pub first: String,
}

/// Clears kmemleak's list of suspects. False if the kernel lacks kmemleak.
///
/// # Errors
/// kmemleak exists but cannot be cleared.
pub fn clear() -> io::Result<bool> {
    if Path::new(DEBUGFS).is_dir() && !Path::new(FILE).exists() {
        // Fails if debugfs is mounted already or missing. The check below
        // decides.
        let _ = mount(Some("debugfs"), DEBUGFS, Some("debugfs"), MsFlags::empty(), None::<&str>);
    }
    if !Path::new(FILE).exists() {
        return Ok(false);
    }
    fs::write(FILE, "clear")?;
    Ok(true)
}

/// Scans for unreferenced objects.
///
/// # Errors
/// The scan cannot be started or its result cannot be read.
pub fn scan() -> io::Result<Leaks> {
    sleep(MIN_AGE);
    // Scanned twice: the first scan may miss a pointer that was being moved.
    fs::write(FILE, "scan")?;
    fs::write(FILE, "scan")?;
    let report = fs::read_to_string(FILE)?;
    Ok(parse(&report))
}

fn parse(report: &str) -> Leaks {
    let objects = report.lines().filter(|line| line.starts_with("unreferenced object")).count();
    let first = report.lines().take(LINES_MAX).collect::<Vec<_>>().join("\n");
    Leaks { objects, first }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_counted_and_the_first_is_returned() {
        let report = "unreferenced object 0xffff888003a5d000 (size 1024):\n  comm \"insmod\"\n\
                      unreferenced object 0xffff888003a5d400 (size 32):\n  comm \"insmod\"\n";
        let leaks = parse(report);
        assert_eq!(leaks.objects, 2);
        assert!(leaks.first.contains("(size 1024)"), "{leaks:?}");
        assert_eq!(parse("").objects, 0);
    }
}
