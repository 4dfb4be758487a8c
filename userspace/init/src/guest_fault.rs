//! Faults that the guest injects on the host's request. The rig's tests check
//! that the host detects each. A hostile guest needs no request.

use std::fs;
use std::io;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot};
use nlrig_init::protocol::{Event, GuestFault};
use serde_json::json;

use crate::channel::Channel;

/// Delay for half an event to reach the host before the reboot.
const HALF_EVENT_DELAY: Duration = Duration::from_millis(200);

/// Sends no further events.
pub fn mute() -> ! {
    loop {
        sleep(Duration::from_secs(3600));
    }
}

/// Ends a job with `fault` in place of its last event, `exited`.
pub fn end_job(fault: GuestFault, exited: &Event, channel: &mut Channel) -> io::Result<()> {
    match fault {
        GuestFault::CutResult => {
            let whole = serde_json::to_vec(exited)?;
            channel.send_raw(&whole[..whole.len() / 2])?;
            sleep(HALF_EVENT_DELAY);
            let Err(err) = reboot(RebootMode::RB_AUTOBOOT);
            Err(err.into())
        }
        GuestFault::Garbage => channel.send_raw(b"\xff\xfe\x1b[2J\n"),
        GuestFault::Flood => loop {
            channel.send(&Event::Data { value: json!({ "flood": "x".repeat(1000) }) })?;
        },
        GuestFault::ForgedEnd => {
            channel.send(&Event::End)?;
            fs::write("/proc/sysrq-trigger", "c")
        }
        GuestFault::Mute => mute(),
        // The job ends normally; the fault is at the end of the session.
        GuestFault::NoLastEvent => channel.send(exited),
    }
}
