//! The end of a machine: the one that was asked for, and every other.

use std::net::Shutdown;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use crate::outcome::Result;
use nlrig_init::protocol::{Event, PORT_CLOSED, Request};
use nlrig_splat::Severity;

use super::job::CONSOLE_LAG;
use super::{Guest, VmFailure, loss};
use crate::outcome::{FaultDomain, Verdict};
use crate::share::Share;
use nlrig_host::interrupt;

/// How long QEMU may take to close once its guest is gone.
const QEMU_END_LIMIT: Duration = Duration::from_secs(5);

impl Guest {
    /// Ends the machine and waits until it is gone.
    ///
    /// # Errors
    /// A [`VmFailure`] if the last event did not come, the machine did not end after
    /// it, or its kernel has said anything bad of itself.
    pub fn end(mut self) -> Result<()> {
        self.send(&Request::End)?;
        let deadline = Instant::now() + self.end_limit;
        match self.next_event(deadline)? {
            Some(Event::End) => {}
            Some(event) => return Err(self.out_of_order(&event)),
            None => return Err(self.hung("the guest did not end when it was told to")?),
        }
        // The guest waits for this: what is still queued there is then ours.
        let _ = self.control.shutdown(Shutdown::Both);
        let deadline = Instant::now() + self.end_limit;
        let mut status = self.qemu.try_wait()?;
        while status.is_none() && Instant::now() < deadline {
            // QEMU waits for nobody to read its console.
            self.listen_for(Duration::from_millis(5))?;
            if self.console.source().is_none() {
                // There is nothing to listen to, and the host has work to do: the
                // guest's memory is freed before QEMU can be waited for.
                std::thread::sleep(Duration::from_millis(1));
            }
            status = self.qemu.try_wait()?;
        }
        self.qemu.kill();
        self.console.drain();
        if let Some(splat) = self.kernel_fault() {
            return Err(VmFailure::of_splat(&splat).into());
        }
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => {
                let reason = format!("QEMU ended ({status}) after the guest's last event");
                Err(VmFailure::caused_by(Verdict::LostVm, reason, FaultDomain::Qemu).into())
            }
            None => Err(loss(Verdict::GuestHang, "the guest said its last word and did not end")),
        }
    }

    /// What the guest said cannot be; its console may know why.
    pub(super) fn confused(&mut self, nonsense: VmFailure) -> crate::outcome::Error {
        match self.listen_for(CONSOLE_LAG) {
            Ok(()) => self.with_splat(nonsense).into(),
            Err(err) => err,
        }
    }

    pub(super) fn out_of_order(&mut self, event: &Event) -> crate::outcome::Error {
        let event = format!("{event:?}");
        let name = event.split([' ', '{']).next().unwrap_or_default();
        self.confused(VmFailure::new(
            Verdict::LostVm,
            format!("the guest sent {name} out of order"),
        ))
    }

    /// Why a share's daemon is gone, if one is.
    pub(super) fn share_failure(&mut self) -> Option<String> {
        self.shares.iter_mut().find_map(Share::failure)
    }

    /// Why a machine is gone before its last event, from what it left.
    pub(super) fn post_mortem(&mut self) -> crate::outcome::Error {
        let share = self.share_failure();
        // QEMU closes its sockets before it is gone, and the console may hold
        // more than was read.
        let deadline = Instant::now() + QEMU_END_LIMIT;
        let mut status = None;
        while share.is_none() && status.is_none() && Instant::now() < deadline {
            if let Err(interrupted) = interrupt::check() {
                return interrupted.into();
            }
            status = self.qemu.try_wait().ok().flatten();
            std::thread::sleep(Duration::from_millis(5));
        }
        // Its pipes end with it, so that what is left in them can be read out.
        self.qemu.kill();
        self.console.drain();
        self.complaints.drain();
        if let Some(splat) =
            self.console.splat().filter(|splat| splat.severity() == Severity::Panic)
        {
            return VmFailure::of_splat(&splat).into();
        }
        if let Some(reason) = share.or_else(|| self.share_failure()) {
            return VmFailure::caused_by(Verdict::LostVm, reason, FaultDomain::Host).into();
        }
        let closed = self.console.tail().iter().any(|line| line.ends_with(PORT_CLOSED));
        let loss = lost_without_end(status.filter(|_| !closed), &self.complaints.tail());
        VmFailure { qemu_status: status, ..self.with_splat(loss) }.into()
    }
}

/// The loss of a machine whose QEMU ended with this status before the guest's
/// last event, or with none if the event port was closed first; `complaints` are
/// the last lines of QEMU's standard error.
fn lost_without_end(status: Option<ExitStatus>, complaints: &[String]) -> VmFailure {
    let Some(status) = status else {
        let reason = "the event port was closed without the guest's last event";
        return VmFailure::caused_by(Verdict::LostVm, reason, FaultDomain::Unknown);
    };
    let complaint = complaints.last().map_or(String::new(), |line| format!(": {line}"));
    let terminated = complaints.iter().any(|line| line.contains(": terminating on signal "));
    // QEMU ends successfully when it is told to by SIGTERM, SIGINT or SIGHUP
    // (qemu_kill_report() in QEMU's softmmu/runstate.c).
    if !status.success() || terminated {
        let reason = format!("QEMU ended ({status}) without the guest's last event{complaint}");
        return VmFailure::caused_by(Verdict::LostVm, reason, FaultDomain::Qemu);
    }
    // Under -no-reboot QEMU ends successfully when the guest resets its machine.
    let reason = format!(
        "the guest rebooted or triple-faulted: QEMU ended ({status}) without the guest's last \
         event{complaint}"
    );
    VmFailure::new(Verdict::Reset, reason)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn lost(status: Option<i32>, complaint: &str) -> (Verdict, FaultDomain) {
        let complaints: Vec<_> = complaint.lines().map(str::to_string).collect();
        let loss = lost_without_end(status.map(ExitStatus::from_raw), &complaints);
        (loss.verdict, loss.fault_domain)
    }

    #[test]
    fn only_a_qemu_that_ends_well_by_itself_was_reset_by_its_guest() {
        const EXIT_1: i32 = 1 << 8;
        const TERMINATED: &str = "qemu-system-x86_64: terminating on signal 15 from pid 1 (sh)";
        assert_eq!(lost(Some(0), ""), (Verdict::Reset, FaultDomain::Guest));
        assert_eq!(lost(Some(0), "warning: x"), (Verdict::Reset, FaultDomain::Guest));
        assert_eq!(lost(Some(0), TERMINATED), (Verdict::LostVm, FaultDomain::Qemu));
        assert_eq!(lost(Some(EXIT_1), ""), (Verdict::LostVm, FaultDomain::Qemu));
        assert_eq!(lost(Some(9), ""), (Verdict::LostVm, FaultDomain::Qemu));
        assert_eq!(lost(None, ""), (Verdict::LostVm, FaultDomain::Unknown));
    }
}
