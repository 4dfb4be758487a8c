//! A snapshot of all tasks from proc(5), to diagnose a guest that does not
//! finish.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nlrig_init::protocol::Task;

/// Thousands of threads take longer to read than the host waits.
const LOOK_LIMIT: Duration = Duration::from_secs(3);
/// The maximum number of tasks, with their stacks, in one event.
const TASKS_MAX: usize = 100;
/// The maximum stack depth. The outermost frames are alike in all tasks.
const FRAMES_MAX: usize = 12;
/// The parent of all kernel threads.
const KTHREADD: u32 = 2;

/// Reads the state of the tasks. True if a limit cut the list short.
pub fn look() -> (Vec<Task>, bool) {
    let deadline = Instant::now() + LOOK_LIMIT;
    let mut tasks = Vec::new();
    for process in numbers(Path::new("/proc")) {
        for (tid, folder) in numbers(&process.1.join("task")) {
            if tasks.len() == TASKS_MAX || Instant::now() > deadline {
                return (tasks, true);
            }
            // Tasks that ended meanwhile are skipped.
            tasks.extend(task(process.0, tid, &folder));
        }
    }
    (tasks, false)
}

/// The entries of a directory that have a number as name, in ascending order.
fn numbers(folder: &Path) -> Vec<(u32, PathBuf)> {
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
    let stuck = matches!(state, 'R' | 'D');
    if !stuck && (parent == KTHREADD || pid == KTHREADD) {
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
    fn a_name_may_look_like_the_rest() {
        assert_eq!(parse("7 (a) R (b) D 2 0 0"), Some(("a) R (b", 'D', 2)));
        assert_eq!(parse("7 (cat"), None);
        assert_eq!(frame("[<0>] do_wait+0x1/0x2"), "do_wait+0x1/0x2");
    }

    #[test]
    fn this_process_is_among_them() {
        let (tasks, _) = look();
        assert!(!tasks.is_empty());
    }
}
