//! What the host's kernel knows of its processes and its memory: proc(5).

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

/// Where the kernel says how much memory there is.
pub const MEMINFO: &str = "/proc/meminfo";

/// How long ago this process was forked, to a tick (10 ms). Who execs stays the
/// same process, so this counts from the first of a chain of programs that
/// became one another.
///
/// # Errors
/// There is no proc file system.
pub fn age() -> Result<Duration> {
    const PATH: &str = "/proc/self/stat";
    let stat = fs::read_to_string(PATH).context(PATH)?;
    let ticks = start_ticks(&stat).with_context(|| format!("{PATH}: no start time"))?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("the length of a tick is unknown")?;
    let started = Duration::from_secs_f64(ticks as f64 / per_second as f64);
    // The clock that the ticks are of: it goes on while the host sleeps.
    let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
    Ok(now.saturating_sub(started))
}

/// Field 22: when the process was forked, in ticks since the host's start.
fn start_ticks(stat: &str) -> Option<u64> {
    // Field 2 is the program's name and may hold blanks and parentheses.
    let (_, from_third) = stat.rsplit_once(')')?;
    from_third.split_whitespace().nth(22 - 3)?.parse().ok()
}

/// The most memory that a process has had resident so far (VmHWM), in bytes.
///
/// # Errors
/// There is no such process any more.
pub fn peak_bytes(id: u32) -> Result<u64> {
    let path = format!("/proc/{id}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    field_bytes(&status, "VmHWM:").with_context(|| format!("{path}: no VmHWM"))
}

/// The processes that a process has started and not waited for yet; none where
/// the kernel does not list them.
pub fn children(id: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// Whether this process may use a capability: `number` is that of
/// linux/capability.h.
pub fn is_capable(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> number & 1 == 1)
}

/// A line of proc_meminfo(5), in bytes.
///
/// # Errors
/// There is no such file, or no such line in it.
pub fn meminfo_bytes(path: &Path, name: &str) -> Result<u64> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    field_bytes(&text, name).with_context(|| format!("{}: no {name}", path.display()))
}

/// `name   1234 kB`, in bytes.
fn field_bytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// How many tasks wanted a processor in the last minute, on average; none if
/// nobody knows.
pub fn load() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_does_not_shift_the_fields() {
        let fields = |name: &str| {
            format!("7 ({name}) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 4096 99")
        };
        for name in ["cat", "a b", "x) S 1 ("] {
            assert_eq!(start_ticks(&fields(name)), Some(12345), "{name}");
        }
        assert_eq!(start_ticks("7 (cat) S 1"), None);
    }

    #[test]
    fn this_process_is_young_and_small() {
        assert!(age().unwrap() < Duration::from_secs(60 * 60));
        let peak = peak_bytes(std::process::id()).unwrap();
        assert!((1 << 20..1 << 34).contains(&peak), "{peak}");
        let status = "Name:\tcat\nVmHWM:\t    1528 kB\nVmRSS:\t 8 kB\n";
        assert_eq!(field_bytes(status, "VmHWM:"), Some(1528 * 1024));
    }

    #[test]
    fn meminfo_is_in_kib() {
        let text = "MemTotal:       24684084 kB\nMemFree:  1 kB\nMemAvailable:   24035332 kB\n";
        assert_eq!(field_bytes(text, "MemTotal:"), Some(24_684_084 * 1024));
        assert_eq!(field_bytes(text, "MemAvailable:"), Some(24_035_332 * 1024));
        for text in ["", "MemTotal:", "MemTotal: many kB", "MemTotal: 1", "MemTotal: -1 kB"] {
            assert_eq!(field_bytes(text, "MemTotal:"), None, "{text}");
        }
        assert_eq!(field_bytes(&format!("MemTotal: {} kB", u64::MAX), "MemTotal:"), None);
    }
}
