//! The port formulas, computed in machine words and truncated to the 32 bits of
//! a port.

use std::sync::Mutex;

use nlrig_guest::ports::{Formula, Generator};

/// The port of a thread. None if the generator is exhausted. Called by the
/// thread, so it must not allocate.
pub fn port(
    formula: Formula,
    pthread_self: usize,
    tid: u32,
    process: u32,
    generator: &Mutex<Generator>,
) -> Option<u32> {
    let pid = process as usize;
    Some(match formula {
        Formula::LinuxJournal => (pthread_self << 16 | pid) as u32,
        Formula::Paper => (pthread_self >> 16 | pid << 16) as u32,
        Formula::PaperMasked => (pthread_self >> 16 & 0xffff | pid << 16) as u32,
        Formula::PaperXor => (pthread_self >> 16 ^ pid << 16) as u32,
        Formula::HighHalf => (pthread_self & 0xffff_0000 | pid & 0xffff) as u32,
        Formula::Shift12 => (pthread_self >> 12 | pid << 16) as u32,
        Formula::Gettid => tid,
        Formula::Libnl => return generator.lock().ok()?.next(process),
        Formula::Kernel => 0,
    })
}
