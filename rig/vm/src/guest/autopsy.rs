//! What can still be learned of a machine whose program is late, or that does
//! not answer any more.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::outcome::Result;
use nlrig_init::protocol::{Event, Request, Task};
use nlrig_splat::{Severity, Splat};

use super::{Guest, VmFailure, Woken, seconds};
use crate::outcome::Verdict;
use crate::qemu;
use nlrig_build::kernel::symbols::Symbols;
use nlrig_host::ui::{sanitize, truncate};

/// How long the console is listened to after a request to the kernel itself. A
/// serial line of a guest takes some ten thousand characters a second.
const LISTEN: Duration = Duration::from_millis(700);
/// How long a panic may take to come out: the kernel waits for processors that
/// do not stop, a second at a time, before it prints what it has to say. On a busy
/// host its seconds are longer than ours. The end of QEMU ends the wait.
const PANIC_LIMIT: Duration = Duration::from_secs(15);
/// Requests to the kernel: call traces of what the processors do, and of the
/// tasks that are blocked (Documentation/admin-guide/sysrq.rst).
const SYSRQS: [u8; 2] = [b'l', b'w'];
/// How many tasks a reason names; the others are in the file.
const TASKS_NAMED: usize = 2;
/// How many frames of a task's stack a reason names.
const FRAMES_NAMED: usize = 4;

/// The file of a trial's folder that has what its tasks did.
pub const TASKS_FILE: &str = "tasks.txt";

impl Guest {
    /// The program is late after so long: who is to fault_domain? If PID 1 answers,
    /// only the program; else the guest.
    pub(super) fn late(
        &mut self,
        passed: Duration,
        answer: Duration,
    ) -> Result<crate::outcome::Error> {
        let what = format!("the program was not done after {}", seconds(passed));
        // PID 1 may wait for a reader of what it passes on.
        self.streams.discard();
        let Some((tasks, cut)) = self.ask_for_tasks(answer)? else {
            return self.hung(&format!("{what}, and nobody answers in the guest"));
        };
        let mut text = show(&tasks);
        if cut {
            text.push_str("and more, which were not looked at\n");
        }
        nlrig_host::cache::write(&self.dir.join(TASKS_FILE), text)?;
        let reason = format!("{what}; {}", summary(&tasks));
        Ok(self.with_splat(VmFailure::new(Verdict::Timeout, reason)).into())
    }

    /// Nobody answers: what the processors do is known to QEMU, and to the
    /// kernel, if that still takes a break or an interrupt that cannot be
    /// masked.
    pub(super) fn hung(&mut self, what: &str) -> Result<crate::outcome::Error> {
        let mut reason = what.to_string();
        let (said, cause) = (self.console.splat(), self.kernel_fault());
        match self.processors() {
            Ok(places) => reason.push_str(&format!("; {places}")),
            Err(err) if err.is_interruption() => return Err(err),
            Err(err) => reason.push_str(&format!("; {err:#}")),
        }
        if self.was_ready {
            for request in SYSRQS {
                self.press_sysrq(request)?;
            }
            self.listen_for(LISTEN)?;
            // The last means: the kernel panics with a call trace.
            if self.monitor.inject_nmi().is_ok() {
                self.listen_for(PANIC_LIMIT)?;
            }
            if let Some(panic) = self.console.splat().filter(|seen| Some(seen) != said.as_ref()) {
                let stack: Vec<_> =
                    panic.trace.iter().take(FRAMES_NAMED).map(String::as_str).collect();
                if !stack.is_empty() {
                    reason.push_str(&format!("; interrupted in {}", stack.join(" < ")));
                }
            }
        }
        Ok(with_cause(VmFailure::new(Verdict::GuestHang, reason), cause.as_ref()).into())
    }

    /// A loss with its cause, if the console has one.
    pub(super) fn with_splat(&self, loss: VmFailure) -> VmFailure {
        with_cause(loss, self.kernel_fault().as_ref())
    }

    /// Where each processor is, in a few words.
    fn processors(&mut self) -> Result<String> {
        let pointers = self.monitor.instruction_pointers()?;
        let symbols = Symbols::read(&self.symbols)?;
        let places: Vec<_> = pointers
            .iter()
            .enumerate()
            .map(|(cpu, address)| format!("CPU {cpu} at {}", symbols.name(*address)))
            .collect();
        Ok(places.join(", "))
    }

    fn press_sysrq(&mut self, request: u8) -> Result<()> {
        if self.monitor.send_break(qemu::CONSOLE).is_ok() {
            // A guest that takes nothing any more takes this neither.
            let _ = self.keyboard.write(&[request]);
        }
        self.listen_for(LISTEN / 4)
    }

    /// Takes in what comes, events aside, for so long or until the end.
    ///
    /// # Errors
    /// A file cannot be written; an interruption.
    pub fn listen_for(&mut self, how_long: Duration) -> Result<()> {
        let deadline = Instant::now() + how_long;
        loop {
            nlrig_host::interrupt::check()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.console.source().is_none() {
                return Ok(());
            }
            match self.wake(left.min(nlrig_host::interrupt::POLL)) {
                // Closed events are always ready: do not spin on them.
                Ok(Woken::Gone) => std::thread::sleep(Duration::from_millis(5)),
                Ok(_) => {}
                // Garbage at this point changes nothing.
                Err(err) if err.vm_failure().is_some() => {}
                Err(err) => return Err(err),
            }
        }
    }

    /// What the guest's tasks do, if it says so in time, and whether there are
    /// more of them.
    fn ask_for_tasks(&mut self, limit: Duration) -> Result<Option<(Vec<Task>, bool)>> {
        self.send(&Request::Tasks)?;
        let deadline = Instant::now() + limit;
        // However much else it says.
        while Instant::now() < deadline {
            if let Some(Event::Tasks { tasks, cut }) = self.next_event(deadline)? {
                return Ok(Some((tasks, cut)));
            }
        }
        Ok(None)
    }
}

/// A loss that has a cause is that cause's. A guest that hangs has said more than
/// one that warns.
fn with_cause(loss: VmFailure, cause: Option<&Splat>) -> VmFailure {
    match cause {
        None => loss,
        Some(splat)
            if splat.severity() == Severity::Warning && loss.verdict == Verdict::GuestHang =>
        {
            let reason = format!("{}; {}", loss.reason, splat.describe());
            VmFailure::new(loss.verdict, reason).with_report(splat)
        }
        Some(splat) => {
            let reason = format!("{}; {}", splat.describe(), loss.reason);
            VmFailure::new(splat.severity().into(), reason).with_report(splat)
        }
    }
}

/// What a guest calls a thing: one line, fit for a terminal.
fn name(text: &str) -> String {
    truncate(sanitize(text))
}

/// A task a paragraph, fit for a terminal.
pub fn show(tasks: &[Task]) -> String {
    let mut text = String::from("   pid    tid state name, and its stack in the kernel\n");
    for task in tasks {
        let Task { pid, tid, comm, state, stack } = task;
        let state = name(&state.to_string());
        text.push_str(&format!("{pid:6} {tid:6} {state}     {}\n", name(comm)));
        for frame in stack {
            text.push_str(&format!("                    {}\n", name(frame)));
        }
    }
    text
}

/// Who is stuck: tasks that cannot be woken before those that run, and these
/// before all others but PID 1.
pub fn summary(tasks: &[Task]) -> String {
    let rank = |task: &&Task| match task.state {
        'D' => 0,
        'R' => 1,
        _ => 2,
    };
    let mut others: Vec<_> = tasks.iter().filter(|task| task.pid != 1).collect();
    others.sort_by_key(rank);
    let named: Vec<_> = others
        .iter()
        .take(TASKS_NAMED)
        .map(|task| {
            let Task { tid, comm, state, stack, .. } = task;
            let place = match &stack[..stack.len().min(FRAMES_NAMED)] {
                [] => String::new(),
                frames => format!(" in {}", frames.join(" < ")),
            };
            format!("{comm} ({tid}) is in state {state}{place}")
        })
        .collect();
    match named.as_slice() {
        [] => "it has no task left".to_string(),
        named => name(&named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(tid: u32, comm: &str, state: char, stack: &[&str]) -> Task {
        let stack = stack.iter().map(|frame| (*frame).to_string()).collect();
        Task { pid: tid, tid, comm: comm.to_string(), state, stack }
    }

    #[test]
    fn who_cannot_be_woken_is_named_first() {
        let tasks = [
            task(1, "init", 'R', &[]),
            task(60, "sh", 'S', &["do_wait+0x1/0x2"]),
            task(61, "fault", 'D', &["nlrig_block+0x2/0x3 [nlrig]", "nlrig_fault+0x4/0x5 [nlrig]"]),
        ];
        assert_eq!(
            summary(&tasks),
            "fault (61) is in state D in nlrig_block+0x2/0x3 [nlrig] < nlrig_fault+0x4/0x5 [nlrig], \
             sh (60) is in state S in do_wait+0x1/0x2"
        );
        assert_eq!(summary(&tasks[..1]), "it has no task left");
        assert_eq!(show(&tasks).lines().count(), 1 + 3 + 3);
    }

    #[test]
    fn names_are_the_guests_own_words() {
        let forged = [task(9, "\x1b[2J", '\x1b', &["\x1b[2J\n     1      1 R"])];
        assert!(!show(&forged).contains('\x1b') && !summary(&forged).contains('\x1b'));
        assert_eq!(show(&forged).lines().count(), 1 + 2, "a name is no line of its own");
    }
}
