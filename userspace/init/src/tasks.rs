//! A snapshot of all tasks from proc(5), to diagnose a guest that does not
//! finish.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nlrig_init::protocol::Task;

/// Thousands of threads take longer to read than the host waits.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(3);
/// The maximum number of tasks, with their stacks, in one event.
const TASKS_MAX: usize = 100;
/// The maximum stack depth. The outermost frames are alike in all tasks.
const FRAMES_MAX: usize = 12;
/// The parent of all kernel threads.
const KTHREADD: u32 = 2;

/// Reads the state of the tasks. True if a limit cut the list short.
pub fn snapshot() -> (Vec<Task>, bool) {
    let deadline = Instant::now() + SNAPSHOT_TIMEOUT;
    let mut tasks = Vec::new();
    for process in numeric_entries(Path::new("/proc")) {
        for (tid, folder) in numeric_entries(&process.1.join("task")) {
            if tasks.len() == TASKS_MAX || Instant::now() > deadline {
                return (tasks, true);
            }
            // Tasks that ended meanwhile are skipped.
            tasks.extend(task(process.0, tid, &folder));
        }
    }
    (tasks, false)
}

/// The entries of a directory with numeric names, in ascending order.
fn numeric_entries(folder: &Path) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))
        })
        .collect();
    found.sort_unstable();
    found
}

fn task(pid: u32, tid: u32, folder: &Path) -> Option<Task> {
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    let (comm, state, parent) = parse(&stat)?;
    let running_or_blocked = matches!(state, 'R' | 'D');
    if !running_or_blocked && (parent == KTHREADD || pid == KTHREADD) {
        return None;
    }
    let stack = fs::read_to_string(folder.join("stack")).unwrap_or_default();
    let stack = stack.lines().take(FRAMES_MAX).map(frame).collect();
    Some(Task { pid, tid, comm: comm.to_string(), state, stack })
}

/// Name, state and parent of a task: fields 2 to 4 of stat. The name may
/// contain blanks and parentheses.
fn parse(stat: &str) -> Option<(&str, char, u32)> {
    let (before, after) = stat.rsplit_once(") ")?;
    let comm = before.split_once('(')?.1;
    let mut fields = after.split_whitespace();
    Some((comm, fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Strips the address from `[<0>] function+0x1/0x2`; the kernel hides it
/// anyway.
fn frame(line: &str) -> String {
    line.split_once("] ").map_or(line, |(_, function)| function).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_contain_blanks_and_parentheses() {
        assert_eq!(parse("7 (a) R (b) D 2 0 0"), Some(("a) R (b", 'D', 2)));
        assert_eq!(parse("7 (cat"), None);
        assert_eq!(frame("[<0>] do_wait+0x1/0x2"), "do_wait+0x1/0x2");
    }

    #[test]
    fn a_snapshot_has_this_process() {
        let (tasks, _) = snapshot();
        assert!(!tasks.is_empty());
    }
}
