//! The port formulas, computed in machine words and truncated to the 32 bits of
//! a port.

use std::sync::Mutex;

use nlrig_guest::ports::{Formula, Generator};

/// The port of a thread, from its pthread_self() (`own`), its thread id and its
/// process id. None if the generator is exhausted. Called by the thread, so it
/// must not allocate.
pub fn port(
    formula: Formula,
    own: usize,
    id: u32,
    process: u32,
    generator: &Mutex<Generator>,
) -> Option<u32> {
    let pid = process as usize;
    Some(match formula {
        Formula::LinuxJournal => (own << 16 | pid) as u32,
        Formula::Paper => (own >> 16 | pid << 16) as u32,
        Formula::PaperMasked => (own >> 16 & 0xffff | pid << 16) as u32,
        Formula::PaperXor => (own >> 16 ^ pid << 16) as u32,
        Formula::HighHalf => (own & 0xffff_0000 | pid & 0xffff) as u32,
        Formula::Shift12 => (own >> 12 | pid << 16) as u32,
        Formula::Gettid => id,
        Formula::Libnl => return generator.lock().ok()?.next(process),
        Formula::Kernel => 0,
    })
}
