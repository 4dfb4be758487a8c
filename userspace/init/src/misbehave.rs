//! What this guest does wrongly when the host asks it to: the rig's own tests
//! show that each is seen. A hostile guest needs no such request.

use std::fs;
use std::io;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot};
use nlrig_init::protocol::{Event, GuestFault};
use serde_json::json;

use crate::channel::Channel;

/// How long half an event gets to reach the host before the machine ends.
const HALF_EVENT_DELAY: Duration = Duration::from_millis(200);

/// Says nothing any more.
pub fn mute() -> ! {
    loop {
        sleep(Duration::from_secs(3600));
    }
}

/// Ends a job in this wrong way, where `exited` would be its last event.
pub fn end_job(how: GuestFault, exited: &Event, channel: &mut Channel) -> io::Result<()> {
    match how {
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
        // The job itself goes well.
        GuestFault::NoLastEvent => channel.send(exited),
    }
}
