//! The end of a machine: the one that was asked for, and every other.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use crate::outcome::Result;
use nlrig_init::protocol::{Event, Request};

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
        if let Some(splat) = self.console.splat() {
            return Err(loss(splat.verdict, splat.describe()));
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
        if let Some(splat) = self.console.splat().filter(|splat| splat.verdict == Verdict::Panic) {
            return loss(Verdict::Panic, splat.describe());
        }
        if let Some(reason) = share.or_else(|| self.share_failure()) {
            return VmFailure::caused_by(Verdict::LostVm, reason, FaultDomain::Host).into();
        }
        let how = match status {
            Some(status) => format!("QEMU ended ({status})"),
            None => "the guest or QEMU closed the event port".to_string(),
        };
        let why = match self.complaints.tail().last() {
            Some(line) => format!(": {line}"),
            None if status.is_some_and(|status| status.success()) => {
                ": it has rebooted, or reset its processor by a triple fault".to_string()
            }
            None => String::new(),
        };
        let reason = format!("{how} without the guest's last event{why}");
        // A guest cannot make QEMU fail; a reset of its machine is a success.
        let fault_domain = match status {
            Some(status) if !status.success() => FaultDomain::Qemu,
            _ => FaultDomain::Guest,
        };
        let loss = VmFailure::caused_by(Verdict::LostVm, reason, fault_domain);
        VmFailure { qemu_status: status, ..self.with_splat(loss) }.into()
    }
}
