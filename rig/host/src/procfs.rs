//! Facts about processes and memory of the host, from proc(5).

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

/// The file with the host's memory sizes.
pub const MEMINFO: &str = "/proc/meminfo";

/// Returns the time since this process was forked, to a tick (10 ms).
///
/// exec() keeps the process, so the time includes programs that exec'd this one.
///
/// # Errors
/// /proc is not mounted.
pub fn age() -> Result<Duration> {
    const PATH: &str = "/proc/self/stat";
    let stat = fs::read_to_string(PATH).context(PATH)?;
    let ticks = start_ticks(&stat).with_context(|| format!("{PATH}: no start time"))?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("sysconf: no _SC_CLK_TCK")?;
    let started = Duration::from_secs_f64(ticks as f64 / per_second as f64);
    // Start times are in the boot time clock, which includes suspend.
    let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
    Ok(now.saturating_sub(started))
}

/// Returns field 22, the start time of the process in ticks since boot.
fn start_ticks(stat: &str) -> Option<u64> {
    // Field 2 is the program's name, which may have blanks and parentheses.
    let (_, from_third) = stat.rsplit_once(')')?;
    from_third.split_whitespace().nth(22 - 3)?.parse().ok()
}

/// Returns the peak resident set size of a process (VmHWM), in bytes.
///
/// # Errors
/// The process has ended.
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

/// Returns a field of a file in the format of proc_meminfo(5), in bytes.
///
/// # Errors
/// The file cannot be read or does not have the field.
pub fn meminfo_bytes(path: &Path, name: &str) -> Result<u64> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    field_bytes(&text, name).with_context(|| format!("{}: no {name}", path.display()))
}

/// Parses the line `name   1234 kB` and returns bytes.
fn field_bytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Returns the load average of the last minute, if /proc/loadavg is readable.
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
