//! The address space: where stacks go, how many there is room for, and how many
//! areas they cost.
//!
//! The kernel searches from mmap_base down, and when that fails from a third of
//! the address space up (mm/mmap.c, `generic_get_unmapped_area_topdown`; on a
//! 64-bit kernel arch/x86/kernel/sys_x86_64.c). So stacks fill the holes below
//! mmap_base from the highest one down, each from its top, and then those above
//! from the lowest one up, each from its bottom.

use nlrig_guest::look::{Look, Outcome};
use nlrig_guest::maps::{self, Area};

use super::PAGE_BYTES;
use crate::abi::Abi;

/// The gap that the kernel keeps below a stack that grows: `stack_guard_gap`,
/// 256 pages (mm/mmap.c).
const STACK_GUARD_GAP_BYTES: u64 = 256 * PAGE_BYTES;

/// The address space of a process before its first thread.
pub struct Space {
    areas: Vec<Area>,
    abi: Abi,
    /// Where the search from the top begins.
    mmap_base: u64,
    /// Where the search from the bottom does.
    bottom_up_from: u64,
    /// The lowest address that is offered.
    low: u64,
    /// The lowest address that is granted.
    min_addr: u64,
}

/// A hole, as far as stacks can use it.
struct Hole {
    stacks: u64,
    first: Joins,
    last: Joins,
    /// The next place in it is offered, and then refused with EPERM.
    refused: bool,
}

/// What a stack becomes one area with.
#[derive(Clone, Copy, Default)]
struct Joins {
    /// Writable memory above it: the heap.
    above: bool,
    /// Memory without access below it.
    below: bool,
}

impl Joins {
    /// What a worker costs in areas, and how far from the maximum their number
    /// must be before it.
    ///
    /// The mapping of a stack joins the guard before it; `mprotect` then splits
    /// it twice, and each split needs `map_count < max` (mm/mmap.c,
    /// `split_vma`). A stack that joins what is above it needs no split, only
    /// `map_count <= max` (`do_mmap`).
    fn terms(self) -> (u64, u64) {
        match (self.above, self.below) {
            (false, false) => (2, 2),
            (false, true) => (1, 1),
            (true, false) => (1, 0),
            (true, true) => (0, 0),
        }
    }
}

impl Space {
    /// The address space that a look shows.
    ///
    /// # Errors
    /// The look's memory map is none.
    pub fn of(look: &Look, abi: Abi) -> Result<Space, maps::BadLine> {
        let mut areas = maps::parse(&look.maps)?;
        areas.retain(|area| area.start < maps::KERNEL);
        let mmap_base = mmap_base(&areas, abi);
        let bottom_up_from = (task_size(abi) / 3).next_multiple_of(PAGE_BYTES)
            + if abi == Abi::I386 { 0 } else { moved(look, abi, mmap_base) };
        let min_addr = look.sysctls.mmap_min_addr.max(PAGE_BYTES);
        Ok(Space {
            areas,
            abi,
            mmap_base,
            bottom_up_from,
            // A 64-bit kernel offers places from the second page on, and then
            // refuses what is below vm.mmap_min_addr to all but root
            // (security/commoncap.c, `cap_mmap_addr`). It does not search again.
            low: if abi == Abi::I386 { min_addr } else { PAGE_BYTES },
            min_addr: if abi == Abi::I386 || look.uid != 0 { min_addr } else { PAGE_BYTES },
        })
    }

    /// How many areas there are.
    pub fn areas(&self) -> u64 {
        self.areas.len() as u64
    }

    /// Bytes in all of them.
    pub fn mapped_bytes(&self) -> u64 {
        self.areas.iter().map(|area| area.end - area.start).sum()
    }

    /// For how many stacks, each with its guard, there is room.
    pub fn stacks(&self, each_bytes: u64) -> u64 {
        self.holes(each_bytes).iter().map(|hole| hole.stacks).sum()
    }

    /// How many workers can be created until vm.max_map_count refuses one.
    pub fn by_map_count(&self, each_bytes: u64, max: u64) -> u64 {
        let (mut areas, mut workers) = (self.areas(), 0);
        // Behind the last hole as if there was one more without end.
        let further = [(u64::MAX, Joins::default())];
        for (run, joins) in self.holes(each_bytes).iter().flat_map(Hole::runs).chain(further) {
            let (cost, distance) = joins.terms();
            let fitting = match max.checked_sub(distance).and_then(|most| most.checked_sub(areas)) {
                None => 0,
                Some(spare) => spare.checked_div(cost).map_or(run, |n| (n + 1).min(run)),
            };
            workers += fitting;
            areas += cost * fitting;
            if fitting < run {
                break;
            }
        }
        workers
    }

    /// The largest hole that was left, of those that the guest listed.
    pub fn largest_hole_bytes(&self, outcome: &Outcome) -> u64 {
        let high = task_size(self.abi);
        let stack = self.areas.iter().find(|area| area.grows_down);
        let usable = |&(start, end): &(u64, u64)| {
            let below_stack = stack.is_some_and(|stack| stack.start == end);
            let end = if below_stack { end.saturating_sub(STACK_GUARD_GAP_BYTES) } else { end };
            end.min(high).saturating_sub(self.from(start))
        };
        // What is above the last mapping is a hole too.
        let above = [(outcome.mapped_end, high)];
        outcome.holes.iter().chain(&above).map(usable).max().unwrap_or(0)
    }

    /// From where on a hole that starts here is used.
    fn from(&self, start: u64) -> u64 {
        if start >= self.mmap_base { start.max(self.bottom_up_from) } else { start.max(self.low) }
    }

    /// All holes, in the order in which they are filled, until nothing more is
    /// granted.
    fn holes(&self, each_bytes: u64) -> Vec<Hole> {
        let end = Area {
            start: task_size(self.abi),
            end: task_size(self.abi),
            kind: maps::Kind::Other,
            grows_down: false,
            name: String::new(),
        };
        let (mut down, mut up) = (Vec::new(), Vec::new());
        let mut below: Option<&Area> = None;
        for above in self.areas.iter().chain([&end]) {
            let start = below.map_or(0, |area| area.end);
            if start >= self.mmap_base {
                up.push(self.hole(below, above, each_bytes, false));
            } else {
                down.push(self.hole(below, above, each_bytes, true));
            }
            if below.is_none_or(|below| above.end > below.end) {
                below = Some(above);
            }
        }
        let mut holes: Vec<_> = down.into_iter().rev().chain(up).collect();
        if let Some(last) = holes.iter().position(|hole| hole.refused) {
            holes.truncate(last + 1);
        }
        holes
    }

    /// The hole between two areas, filled from its top or its bottom.
    fn hole(&self, below: Option<&Area>, above: &Area, each_bytes: u64, from_top: bool) -> Hole {
        let floor = below.map_or(0, |area| area.end);
        let start = self.from(floor);
        let gap = if above.grows_down { STACK_GUARD_GAP_BYTES } else { 0 };
        let end = above.start.saturating_sub(gap).min(task_size(self.abi));
        let fitting = |from: u64| end.saturating_sub(from) / each_bytes;
        let stacks = fitting(start);
        let granted = stacks.min(fitting(start.max(self.min_addr)));
        let full = stacks * each_bytes == end.saturating_sub(start);
        let joins_above = gap == 0 && above.kind == maps::Kind::Writable;
        let joins_below =
            below.is_some_and(|area| area.kind == maps::Kind::NoAccess && area.end == start);
        let (above, below) = (
            Joins { above: joins_above, below: false },
            Joins { above: false, below: joins_below },
        );
        let none = Joins::default();
        let (first, last) = match (from_top, full) {
            (true, true) => (above, below),
            (true, false) => (above, none),
            (false, true) => (below, above),
            (false, false) => (below, none),
        };
        Hole { stacks: granted, first, last, refused: granted < stacks }
    }
}

impl Hole {
    /// Its stacks by what they join, in the order in which they come.
    fn runs(&self) -> impl Iterator<Item = (u64, Joins)> {
        let both = Joins {
            above: self.first.above || self.last.above,
            below: self.first.below || self.last.below,
        };
        let last = if self.refused { Joins::default() } else { self.last };
        let runs = match self.stacks {
            0 => [(0, both), (0, both), (0, both)],
            1 if self.refused => [(1, self.first), (0, both), (0, both)],
            1 => [(1, both), (0, both), (0, both)],
            stacks => [(1, self.first), (stacks - 2, Joins::default()), (1, last)],
        };
        runs.into_iter()
    }
}

/// TASK_SIZE (arch/x86/include/asm/page_32_types.h, page_64_types.h).
fn task_size(abi: Abi) -> u64 {
    match abi {
        Abi::I386 => 0xc000_0000,
        Abi::Ia32 => 0xffff_e000,
        Abi::X86_64 => 0x7fff_ffff_f000,
    }
}

/// What is mapped first ends at mmap_base: on 32 bits the vdso; on 64 bits,
/// where that is above the stack, the program itself.
fn mmap_base(areas: &[Area], abi: Abi) -> u64 {
    let stack = areas.iter().find(|area| area.grows_down).map_or(task_size(abi), |area| area.start);
    let mapped = || areas.iter().rev().filter(|area| area.end <= stack);
    let vdso = mapped().find(|area| area.name == "[vdso]");
    vdso.or(mapped().next()).map_or(stack, |area| area.end)
}

/// By how much the kernel moved mmap_base down at random: as much as it moves
/// the start of the search from the bottom up (arch/x86/mm/mmap.c,
/// `mmap_base`, `mmap_legacy_base`).
fn moved(look: &Look, abi: Abi, mmap_base: u64) -> u64 {
    let (stack_random_pages, most_pages) = match abi {
        Abi::I386 | Abi::Ia32 => (0x7ff, 0xff),
        Abi::X86_64 => (0x3f_ffff, 0xfff_ffff),
    };
    let size = task_size(abi);
    let stack_bytes = look.limits.stack_bytes.unwrap_or(u64::MAX);
    let below = stack_bytes
        .saturating_add(stack_random_pages * PAGE_BYTES + STACK_GUARD_GAP_BYTES)
        .clamp(128 << 20, size / 6 * 5);
    (size - below).saturating_sub(mmap_base).min(most_pages * PAGE_BYTES)
}
