//! One program in a guest, from its start to its end, and what is wrong with the
//! kernel after it.

use std::time::{Duration, Instant};

use nlrig_init::protocol::{Event, Exit, GuestFault, Job, Request};
use nlrig_splat::{Severity, Splat, Taint};

use super::console::Console;
use super::watch::{Due, Limits, Watch};
use super::{Guest, VmFailure, Woken, seconds};
use crate::outcome::{Error, FaultDomain, Result, Verdict};
use nlrig_host::interrupt;

/// How long a program's last output may take to arrive, without the time that
/// the reader of the rig's own output takes.
const OUTPUT_LIMIT: Duration = Duration::from_secs(60);
/// How long the console may lag behind an event that says that there is
/// something on it.
pub(super) const CONSOLE_LAG: Duration = Duration::from_millis(500);

/// Taint bits of a warning: B, W and L.
const TAINTS_OF_WARNING: u64 = 1 << 5 | 1 << 9 | 1 << 14;
/// The taint bit of an oops: D.
const TAINTS_OF_OOPS: u64 = 1 << 7;

/// The taint bits that faults of these kinds set.
fn allowed_taints(kinds: &[Verdict]) -> u64 {
    let bits = |kind: &Verdict| match kind {
        Verdict::Warning => TAINTS_OF_WARNING,
        Verdict::Oops => TAINTS_OF_OOPS,
        Verdict::Taint => !(TAINTS_OF_WARNING | TAINTS_OF_OOPS),
        _ => 0,
    };
    kinds.iter().map(bits).fold(0, |all, bits| all | bits)
}

impl Guest {
    /// Runs one job to its end; `data` gets every object that its program
    /// reports.
    ///
    /// # Errors
    /// A [`VmFailure`] if the program was late or the machine was lost; whatever
    /// `data` failed with.
    pub fn run<E: From<Error>>(
        &mut self,
        job: &Job,
        limits: Limits,
        mut data: impl FnMut(serde_json::Value) -> Result<(), E>,
    ) -> Result<Exit, E> {
        self.send(&Request::Run(job.clone()))?;
        let mut watch = Watch::new(limits, Instant::now());
        loop {
            let now = Instant::now();
            let wait = match watch.due(now) {
                Due::Wait(wait) => wait,
                Due::Ask => {
                    self.send(&Request::Ping)?;
                    self.pongs_due += 1;
                    watch.asked(now);
                    continue;
                }
                Due::Late => return Err(self.late(watch.passed(now), limits.answer)?.into()),
                Due::Dead => {
                    let silent = seconds(limits.answer);
                    let what = format!("nobody in the guest answered within {silent}");
                    return Err(self.hung(&what)?.into());
                }
            };
            let (heard, pongs_due) = (self.heard_bytes(), self.pongs_due);
            let event = self.event_within(wait.min(interrupt::POLL))?;
            let now = Instant::now();
            if self.heard_bytes() != heard {
                watch.heard(now);
            }
            // PID 1 waits for the reader of the rig's output, who takes his time.
            if self.pongs_due < pongs_due || self.streams.is_full() {
                watch.answered(now);
            }
            if self.kernel_fault().is_some_and(|splat| splat.severity() == Severity::Oops) {
                watch.doom(now);
            }
            match event {
                None => continue,
                Some(Event::Started) => self.streams.open(),
                Some(Event::Data { value }) => data(value)?,
                Some(Event::Exited {
                    status,
                    stdout_bytes,
                    stderr_bytes,
                    taint,
                    program_reports,
                }) => {
                    self.console.disown(&program_reports);
                    self.taint = taint;
                    self.drain_streams(stdout_bytes, stderr_bytes)?;
                    self.let_console_catch_up(&status)?;
                    return Ok(status);
                }
                Some(event) => return Err(self.out_of_order(&event).into()),
            }
            watch.sign(now);
        }
    }

    /// What is wrong with the guest's kernel so far, from its console and its
    /// taint mask.
    pub fn trouble(&self) -> Option<VmFailure> {
        if let Some(splat) = self.kernel_fault() {
            return Some(VmFailure::of_splat(&splat));
        }
        let known = self.taint_at_ready | allowed_taints(&self.allowed);
        let taint = Taint::of(self.taint, known)?;
        let verdict = taint.severity.map_or(Verdict::Taint, Verdict::from);
        Some(VmFailure::new(verdict, format!("the kernel is tainted: {}", taint.names)))
    }

    /// Takes faults of these kinds for none: the kernel goes on after them.
    pub fn allow(&mut self, kinds: &[Verdict]) {
        self.allowed = kinds.to_vec();
    }

    /// The worst fault that the kernel printed, unless its kind is allowed.
    pub(super) fn kernel_fault(&self) -> Option<Splat> {
        self.console.splat().filter(|splat| !self.allowed.contains(&splat.severity().into()))
    }

    /// The fault that the kernel printed and whose kind is allowed.
    pub fn allowed_fault(&self) -> Option<VmFailure> {
        let splat = self.console.splat()?;
        self.allowed.contains(&splat.severity().into()).then(|| VmFailure::of_splat(&splat))
    }

    /// The kernel's own words, if it killed a process of this job for want of
    /// memory.
    pub fn out_of_memory(&self) -> Option<&str> {
        self.console.out_of_memory()
    }

    /// Keeps what the next program writes in files, of limited size, `stdout`
    /// and `stderr` in its folder.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn keep_output(&mut self) -> Result<()> {
        self.streams.keep_in(&self.dir)
    }

    /// Lets a command use the rig's own standard output and error, from its
    /// start to its end, and its standard input if `input` is true.
    pub fn forward_streams(&mut self, input: bool) {
        self.streams.forward(input);
    }

    /// Asks the guest to do its next job wrongly.
    ///
    /// # Errors
    /// A [`VmFailure`] if the machine is gone.
    pub fn inject_fault(&mut self, how: GuestFault) -> Result<()> {
        self.send(&Request::InjectFault(how))
    }

    /// How much has come of what nobody asked for.
    fn heard_bytes(&self) -> u64 {
        self.console.bytes() + self.streams.come()
    }

    /// The kernel prints before it lets anybody know, but what it prints comes
    /// another way.
    fn let_console_catch_up(&mut self, exit: &Exit) -> Result<()> {
        self.listen_for(Duration::from_millis(5))?;
        let deadline = Instant::now() + CONSOLE_LAG;
        let killed = *exit == Exit::Signal(libc::SIGKILL);
        let tainted = Taint::of(self.taint, self.taint_at_ready)
            .is_some_and(|taint| taint.severity.is_some());
        let lacks = |console: &Console| {
            console.splat().is_none() && (tainted || killed && console.out_of_memory().is_none())
        };
        while lacks(&self.console) && Instant::now() < deadline {
            self.listen_for(Duration::from_millis(10))?;
        }
        // The rest of a call trace.
        if self.console.splat().is_some() {
            self.listen_for(CONSOLE_LAG)?;
        }
        Ok(())
    }

    /// Waits for the bytes that the guest says it sent, and until they are
    /// written. How long the reader of the rig's own output takes is up to it.
    fn drain_streams(&mut self, stdout_bytes: u64, stderr_bytes: u64) -> Result<()> {
        let mut waited = Duration::ZERO;
        loop {
            let lack = self.streams.lack(stdout_bytes, stderr_bytes);
            if !lack && !self.streams.hold() {
                break;
            }
            interrupt::check()?;
            if waited > OUTPUT_LIMIT {
                let reason = "the command's output did not arrive whole";
                let domain = FaultDomain::Unknown;
                return Err(VmFailure::caused_by(Verdict::LostVm, reason, domain).into());
            }
            let (start, held) = (Instant::now(), self.streams.hold());
            if matches!(self.wake(interrupt::POLL)?, Woken::Gone) {
                return Err(self.post_mortem());
            }
            if !held {
                waited += start.elapsed();
            }
        }
        self.streams.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowed_kind_hides_its_own_taint_bits_only() {
        let judged = |kinds: &[Verdict], mask: u64| {
            Taint::of(mask, allowed_taints(kinds))
                .map(|taint| taint.severity.map_or(Verdict::Taint, Verdict::from))
        };
        const WARNED: u64 = 1 << 9;
        const OOPSED: u64 = 1 << 7;
        const MACHINE_CHECK: u64 = 1 << 4;
        assert_eq!(judged(&[], WARNED), Some(Verdict::Warning));
        assert_eq!(judged(&[Verdict::Warning], WARNED), None);
        assert_eq!(judged(&[Verdict::Warning], WARNED | OOPSED), Some(Verdict::Oops));
        assert_eq!(judged(&[Verdict::Taint], WARNED), Some(Verdict::Warning));
        assert_eq!(judged(&[Verdict::Taint], MACHINE_CHECK), None);
        assert_eq!(judged(&[Verdict::Oops], MACHINE_CHECK), Some(Verdict::Taint));
        assert_eq!(judged(&[], 1 | 1 << 10 | 1 << 12 | 1 << 13 | 1 << 15 | 1 << 18), None);
    }
}
