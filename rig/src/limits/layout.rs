//! The address space layout of a process: which ranges `mmap` searches for a free
//! place, in which order and direction.
//!
//! The kernel chooses the layout at exec (arch/x86/mm/mmap.c,
//! `arch_pick_mmap_layout`). Its `mmap_is_legacy` looks at the personality and at
//! vm.legacy_va_layout. Unlike that of other architectures (mm/util.c) it does not
//! look at RLIMIT_STACK: an unlimited stack only moves mmap_base down.
//!
//! - Top-down: from mmap_base down and, if that fails, from TASK_UNMAPPED_BASE
//!   up (mm/mmap.c, `generic_get_unmapped_area_topdown`; on a 64-bit kernel
//!   arch/x86/kernel/sys_x86_64.c, `arch_get_unmapped_area_topdown`).
//! - Bottom-up: from mmap_base, which is TASK_UNMAPPED_BASE, up. There is no
//!   second search (`generic_get_unmapped_area`, `arch_get_unmapped_area`).

use std::fmt;

use nlrig_guest::maps::Area;
use nlrig_guest::snapshot::Snapshot;
use serde::{Deserialize, Serialize};

use super::PAGE_BYTES;
use crate::abi::Abi;

/// The gap that the kernel keeps below a stack that grows: `stack_guard_gap`,
/// 256 pages (mm/mmap.c).
pub const STACK_GUARD_GAP_BYTES: u64 = 256 * PAGE_BYTES;
/// The least distance from the end of the address space to mmap_base: `SIZE_128M`
/// (arch/x86/mm/mmap.c).
const GAP_MIN_BYTES: u64 = 128 << 20;

/// The direction of a search for a free place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Takes the highest free place: `unmapped_area_topdown` (mm/mmap.c).
    TopDown,
    /// Takes the lowest free place: `unmapped_area` (mm/mmap.c).
    BottomUp,
}

/// One search for a free place: a range of addresses and a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// The direction in which the range is searched.
    pub direction: Direction,
    /// The first address of the range.
    pub start: u64,
    /// The address after the last.
    pub end: u64,
}

impl fmt::Display for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.direction {
            Direction::TopDown => write!(f, "below mmap_base {:#x}", self.end),
            Direction::BottomUp => write!(f, "from TASK_UNMAPPED_BASE {:#x} up", self.start),
        }
    }
}

/// The searches that `mmap` makes for a place, in order. A search is made only if
/// all before it have failed.
pub fn searches(look: &Snapshot, abi: Abi, areas: &[Area]) -> Vec<Search> {
    let bottom_up = |start| Search { direction: Direction::BottomUp, start, end: task_size(abi) };
    if is_legacy(look) {
        return vec![bottom_up(legacy_base(look, abi, areas))];
    }
    let (base, random_bytes) = mmap_base(look, abi, areas);
    let top_down =
        Search { direction: Direction::TopDown, start: lowest_offered(look, abi), end: base };
    // A 64-bit kernel moves the start of the second search up by as much as it
    // moves mmap_base down (`mmap_legacy_base`); a 32-bit kernel does not move it.
    let moved = if abi == Abi::I386 { 0 } else { random_bytes };
    vec![top_down, bottom_up(unmapped_base(abi) + moved)]
}

/// Whether the layout is bottom-up: `mmap_is_legacy`.
fn is_legacy(look: &Snapshot) -> bool {
    has_flag(look, libc::ADDR_COMPAT_LAYOUT) || look.sysctls.legacy_va_layout != 0
}

/// Whether the kernel places mappings at random: PF_RANDOMIZE (fs/binfmt_elf.c).
fn is_randomized(look: &Snapshot) -> bool {
    !has_flag(look, libc::ADDR_NO_RANDOMIZE) && look.sysctls.randomize_va_space != 0
}

/// Whether the personality has a flag of personality(2).
fn has_flag(look: &Snapshot, flag: libc::c_int) -> bool {
    look.personality & flag.cast_unsigned() != 0
}

/// TASK_SIZE (arch/x86/include/asm/page_32_types.h, page_64_types.h).
pub fn task_size(abi: Abi) -> u64 {
    match abi {
        Abi::I386 => 0xc000_0000,
        Abi::Ia32 => 0xffff_e000,
        Abi::X86_64 => 0x7fff_ffff_f000,
    }
}

/// TASK_UNMAPPED_BASE: a third of the address space
/// (arch/x86/include/asm/processor.h).
fn unmapped_base(abi: Abi) -> u64 {
    (task_size(abi) / 3).next_multiple_of(PAGE_BYTES)
}

/// The lowest address that a search from the top offers.
///
/// A 64-bit kernel offers places from the second page on, and refuses those below
/// vm.mmap_min_addr afterwards; see [`lowest_granted`].
fn lowest_offered(look: &Snapshot, abi: Abi) -> u64 {
    match abi {
        Abi::I386 => look.sysctls.mmap_min_addr.max(PAGE_BYTES),
        Abi::Ia32 | Abi::X86_64 => PAGE_BYTES,
    }
}

/// The lowest address that may be mapped. All but root are refused what lies
/// below vm.mmap_min_addr (security/commoncap.c, `cap_mmap_addr`), and the kernel
/// does not search again.
pub fn lowest_granted(look: &Snapshot, abi: Abi) -> u64 {
    if look.uid == 0 {
        lowest_offered(look, abi)
    } else {
        look.sysctls.mmap_min_addr.max(PAGE_BYTES)
    }
}

/// The most bytes by which the kernel moves mmap_base at random: `arch_rnd`, with
/// as many bits as vm.mmap_rnd_bits and vm.mmap_rnd_compat_bits allow
/// (arch/x86/Kconfig, ARCH_MMAP_RND_BITS_MAX).
fn random_bytes_most(look: &Snapshot, abi: Abi) -> u64 {
    let bits = match abi {
        Abi::I386 | Abi::Ia32 => 16,
        Abi::X86_64 => 32,
    };
    if is_randomized(look) { ((1 << bits) - 1) * PAGE_BYTES } else { 0 }
}

/// mmap_base of the top-down layout, and the bytes by which it was moved at
/// random (arch/x86/mm/mmap.c, `mmap_base`).
///
/// The random part is read from the memory map: the first mapping that the kernel
/// places ends at mmap_base. It is the program if that is a static PIE, the vdso of
/// a 32-bit program otherwise.
fn mmap_base(look: &Snapshot, abi: Abi, areas: &[Area]) -> (u64, u64) {
    let stack_random_pages: u64 = match abi {
        Abi::I386 | Abi::Ia32 => 0x7ff,
        Abi::X86_64 => 0x3f_ffff,
    };
    let random_pages = if is_randomized(look) { stack_random_pages } else { 0 };
    let size = task_size(abi);
    let gap = look
        .limits
        .stack_bytes
        .unwrap_or(u64::MAX)
        .saturating_add(random_pages * PAGE_BYTES + STACK_GUARD_GAP_BYTES)
        .clamp(GAP_MIN_BYTES, size / 6 * 5);
    let highest = (size - gap).next_multiple_of(PAGE_BYTES);
    let most = random_bytes_most(look, abi);
    let base = areas
        .iter()
        .map(|area| area.end)
        .rfind(|&end| end <= highest)
        .filter(|&end| highest - end <= most)
        .unwrap_or(highest);
    (base, highest - base)
}

/// mmap_base of the bottom-up layout (arch/x86/mm/mmap.c, `mmap_legacy_base`): the
/// first mapping that the kernel places starts there.
fn legacy_base(look: &Snapshot, abi: Abi, areas: &[Area]) -> u64 {
    let lowest = unmapped_base(abi);
    let most = random_bytes_most(look, abi);
    let mut starts = areas.iter().map(|area| area.start);
    starts.find(|&start| start >= lowest).filter(|&start| start - lowest <= most).unwrap_or(lowest)
}
