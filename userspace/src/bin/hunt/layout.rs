//! Reserves address space before the first thread, to emulate another kernel's
//! layout.

use std::io;
use std::ptr::{null_mut, without_provenance_mut};

use nlrig_guest::hunt::{AddressSpaceLayout, Setup};
use nlrig_guest::maps;

const MAPS: &str = "/proc/self/maps";
/// The end of the address space on a 32-bit kernel with a 3/1 GiB split.
const TASK_SIZE: u64 = 3 << 30;
/// Space left free below the main stack: stack_guard_gap, which the kernel
/// keeps free of other mappings, and some growth of the stack. Too small for a
/// thread's stack or for a heap of malloc.
const BELOW_STACK_BYTES: u64 = (1 << 20) + (128 << 10);

/// mmap_base: the start of the kernel's top-down search. It is the end of the
/// highest mapping below the main stack, before the program has mapped
/// anything.
pub fn mmap_base(map: &str) -> io::Result<u64> {
    let areas = maps::parse(map).map_err(io::Error::other)?;
    let stack = areas.iter().position(|area| area.grows_down);
    let below = stack.and_then(|stack| areas.get(stack.checked_sub(1)?));
    below.map(|area| area.end).ok_or_else(|| io::Error::other("no mapping below the main stack"))
}

/// Reserves the address space as the setup requires.
pub fn arrange(setup: &Setup) -> io::Result<()> {
    if setup.layout == AddressSpaceLayout::TopDownOnly {
        for (start, end) in free_above(&std::fs::read_to_string(MAPS)?)? {
            reserve_at(start, end)?;
        }
    }
    match setup.mapped_bytes {
        Some(bytes) if !reserve(bytes) => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The free ranges above mmap_base.
fn free_above(map: &str) -> io::Result<Vec<(u64, u64)>> {
    let areas = maps::parse(map).map_err(io::Error::other)?;
    let stack = areas.iter().find(|area| area.grows_down);
    let stack = stack.ok_or_else(|| io::Error::other("no main stack in the memory map"))?;
    let gaps =
        [(mmap_base(map)?, stack.start.saturating_sub(BELOW_STACK_BYTES)), (stack.end, TASK_SIZE)];
    Ok(gaps.into_iter().filter(|(start, end)| start < end).collect())
}

/// Whether `bytes` can be mapped in one piece. Leaves nothing mapped.
pub fn fits(bytes: u64) -> bool {
    let Some(address) = map(null_mut(), bytes, 0) else { return false };
    // SAFETY: the mapping is new and unused.
    unsafe { libc::munmap(address, bytes as usize) };
    true
}

fn reserve(bytes: u64) -> bool {
    map(null_mut(), bytes, 0).is_some()
}

fn reserve_at(start: u64, end: u64) -> io::Result<()> {
    let at = usize::try_from(start).map_err(io::Error::other)?;
    match map(without_provenance_mut(at), end - start, libc::MAP_FIXED_NOREPLACE) {
        Some(_) => Ok(()),
        None => Err(io::Error::last_os_error()),
    }
}

/// Maps memory without access rights.
fn map(at: *mut libc::c_void, bytes: u64, flags: libc::c_int) -> Option<*mut libc::c_void> {
    let length = usize::try_from(bytes).ok()?;
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the kernel chooses the address, or MAP_FIXED_NOREPLACE is set, so
    // no mapping is replaced.
    let address = unsafe { libc::mmap(at, length, libc::PROT_NONE, flags, -1, 0) };
    (address != libc::MAP_FAILED).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "\
08048000-08049000 r--p 00000000 00:14 4          /run/nlrig/guest/workloads/hunt
b7f83000-b7f87000 r--p 00000000 00:00 0          [vvar]
b7f87000-b7f89000 r-xp 00000000 00:00 0          [vdso]
bf871000-bf892000 rw-p 00000000 00:00 0          [stack]
";

    #[test]
    fn free_ranges_above_mmap_base_exclude_the_stack_gap() {
        assert_eq!(mmap_base(MAP).unwrap(), 0xb7f8_9000);
        assert_eq!(
            free_above(MAP).unwrap(),
            [(0xb7f8_9000, 0xbf87_1000 - BELOW_STACK_BYTES), (0xbf89_2000, TASK_SIZE)]
        );
    }

    #[test]
    fn a_map_without_a_stack_is_an_error() {
        assert!(mmap_base("").is_err() && free_above("").is_err());
    }
}
