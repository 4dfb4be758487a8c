//! What the host's kernel knows of its processes: proc(5).

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

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
    let kib = peak_kib(&status).with_context(|| format!("{path}: no VmHWM"))?;
    Ok(kib * 1024)
}

fn peak_kib(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
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
        assert_eq!(peak_kib("Name:\tcat\nVmHWM:\t    1528 kB\nVmRSS:\t 8 kB\n"), Some(1528));
    }
}
