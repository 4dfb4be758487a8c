//! The address space: what of it is left for stacks, and how many areas a
//! process may have.

use nlrig_guest::look::{Look, Outcome};
use nlrig_guest::maps::{self, Area};

use crate::abi::Abi;

/// The gap that the kernel keeps below a stack that grows: `stack_guard_gap`,
/// 256 pages (mm/mmap.c).
const STACK_GUARD_GAP_BYTES: u64 = 256 * 4096;

/// How many workers can still be created by a process with this many areas.
///
/// The mapping of a stack joins the guard before it; `mprotect` then splits it
/// twice, and each split needs `map_count < max` (mm/mmap.c, `split_vma`). So
/// the k-th worker comes into being if `areas + 2 (k - 1) <= max - 2`.
pub fn by_map_count(areas: u64, max: u64) -> u64 {
    match max.checked_sub(areas + 2) {
        Some(spare) => spare / 2 + 1,
        None => 0,
    }
}

/// The areas that the kernel counts.
pub fn own_areas(look: &Look) -> Result<Vec<Area>, maps::BadLine> {
    let mut areas = maps::parse(&look.maps)?;
    areas.retain(|area| area.start < maps::KERNEL);
    Ok(areas)
}

/// Where a program's addresses begin and end.
///
/// Low: `mmap_min_addr`, and never page 0; a 32-bit program on a 64-bit kernel
/// is held to page 1 only (arch/x86/kernel/sys_x86_64.c, `low_limit`), but what
/// is below `mmap_min_addr` is refused to all but root.
/// High: TASK_SIZE (arch/x86/include/asm/page_32_types.h, page_64_types.h).
fn ends(abi: Abi, look: &Look) -> (u64, u64) {
    let min_addr = look.sysctls.mmap_min_addr.max(look.page_bytes);
    match abi {
        Abi::I386 => (min_addr, 0xc000_0000),
        Abi::Ia32 if look.uid == 0 => (look.page_bytes, 0xffff_e000),
        Abi::Ia32 => (min_addr, 0xffff_e000),
        Abi::X86_64 => (min_addr, 0x7fff_ffff_f000),
    }
}

/// The holes that stacks can go to, as start and end.
///
/// The kernel searches from mmap_base down, and when that fails from
/// TASK_SIZE/3 up (mm/mmap.c, `generic_get_unmapped_area_topdown`), so it finds
/// every hole: those above mmap_base as well. A hole that is searched from
/// either end takes as many stacks as fit into it. None straddles mmap_base,
/// because the first mapping of a process, [vdso], ends there.
pub fn holes(areas: &[Area], abi: Abi, look: &Look) -> Vec<(u64, u64)> {
    let (low, high) = ends(abi, look);
    let mut holes = Vec::new();
    let mut from = low;
    for area in areas {
        let gap = if area.grows_down { STACK_GUARD_GAP_BYTES } else { 0 };
        let to = area.start.saturating_sub(gap).min(high);
        if to > from {
            holes.push((from, to));
        }
        from = from.max(area.end);
    }
    if high > from {
        holes.push((from, high));
    }
    holes
}

/// The largest hole that was left, of those that the guest listed.
pub fn largest_hole_bytes(look: &Look, outcome: &Outcome, abi: Abi) -> u64 {
    let (low, high) = ends(abi, look);
    let stack =
        own_areas(look).ok().and_then(|areas| areas.into_iter().find(|area| area.grows_down));
    outcome
        .holes
        .iter()
        .map(|&(start, end)| {
            let below_stack = stack.as_ref().is_some_and(|stack| stack.start == end);
            let end = if below_stack { end.saturating_sub(STACK_GUARD_GAP_BYTES) } else { end };
            end.min(high).saturating_sub(start.max(low))
        })
        // What is above the last mapping is a hole too.
        .chain([high.saturating_sub(outcome.mapped_end)])
        .max()
        .unwrap_or(0)
}
