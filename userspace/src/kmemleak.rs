//! The kernel's own search for memory that nobody points to any more, on a kernel
//! that has it (`CONFIG_DEBUG_KMEMLEAK`).

use std::fs;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use nix::mount::{MsFlags, mount};

const DEBUGFS: &str = "/sys/kernel/debug";
const FILE: &str = "/sys/kernel/debug/kmemleak";
/// What is younger is not reported: MSECS_MIN_AGE in mm/kmemleak.c.
const MIN_AGE: Duration = Duration::from_millis(5500);
/// How many lines of a report are given back: one object, or two.
const LINES_MAX: usize = 40;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaks {
    /// Objects that nobody points to.
    pub objects: usize,
    /// The first of them, with the call trace of their allocation.
    pub first: String,
}

/// Forgets all that was found until now. False if this kernel does not search.
///
/// # Errors
/// There is a search, and it cannot be told.
pub fn forget() -> io::Result<bool> {
    if Path::new(DEBUGFS).is_dir() && !Path::new(FILE).exists() {
        // It is there already, or there is none: the file says which.
        let _ = mount(Some("debugfs"), DEBUGFS, Some("debugfs"), MsFlags::empty(), None::<&str>);
    }
    if !Path::new(FILE).exists() {
        return Ok(false);
    }
    fs::write(FILE, "clear")?;
    Ok(true)
}

/// Searches.
///
/// # Errors
/// The search cannot be asked for or read.
pub fn find() -> io::Result<Leaks> {
    sleep(MIN_AGE);
    // What is found once may have been on its way from one place to another.
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
    fn objects_are_counted_and_the_first_is_shown() {
        let report = "unreferenced object 0xffff888003a5d000 (size 1024):\n  comm \"insmod\"\n\
                      unreferenced object 0xffff888003a5d400 (size 32):\n  comm \"insmod\"\n";
        let leaks = parse(report);
        assert_eq!(leaks.objects, 2);
        assert!(leaks.first.contains("(size 1024)"), "{leaks:?}");
        assert_eq!(parse("").objects, 0);
    }
}
