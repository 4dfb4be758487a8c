//! A process and the system around it, as far as they can refuse a thread, in
//! the kernel's and glibc's own steps.

use std::collections::BTreeSet;
use std::ops::Range;

use nlrig_guest::snapshot::Snapshot;

use super::super::{Direction, Limit, Search, predict};
use crate::abi::Abi;

pub const PAGE: u64 = 4096;
/// `stack_guard_gap` in mm/mmap.c.
const GAP: u64 = 256 * PAGE;
/// kernel/pid.c.
const RESERVED_PIDS: u64 = 300;

/// What decides whether neighbours become one area (`vma_merge`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum VmaKind {
    /// Of a file or of the kernel: never joins another.
    Other,
    /// The main thread's stack.
    GrowsDown,
    /// Anonymous: a guard, or a stack that is not writable yet.
    NoAccess,
    /// Anonymous: a stack, the heap.
    Writable,
}

#[derive(Clone, Copy, Debug)]
pub struct Vma {
    pub start: u64,
    pub end: u64,
    pub kind: VmaKind,
}

impl Vma {
    /// Where what is below it has to end: `vm_start_gap`.
    fn floor(&self) -> u64 {
        if self.kind == VmaKind::GrowsDown { self.start - GAP } else { self.start }
    }
}

/// A process and what is around it. The look is both what the prediction gets
/// and, from the first thread on, the kernel's own counters.
#[derive(Clone, Debug)]
pub struct System {
    pub abi: Abi,
    pub stack: u64,
    /// By address.
    pub vmas: Vec<Vma>,
    /// `mm->mmap_base`.
    mmap_base: u64,
    /// The addresses by which it was moved at random. Nothing is mapped there yet.
    moved_over: Range<u64>,
    /// Where the search from the bottom starts that follows one from the top.
    bottom_up_from: u64,
    /// Whether `mm->get_unmapped_area` searches from the top.
    top_down: bool,
    task_size: u64,
    pub ids: Ids,
    pub look: Snapshot,
}

/// The ids of tasks: an `idr` and where it is.
#[derive(Clone, Debug)]
pub struct Ids {
    used: BTreeSet<u64>,
    /// `idr_next`.
    pub cursor: u64,
}

impl Ids {
    pub fn new(used: &[u32], last: u64) -> Ids {
        Ids { used: used.iter().map(|&id| u64::from(id)).collect(), cursor: last + 1 }
    }

    /// `alloc_pid`, `idr_alloc_cyclic`.
    pub fn alloc(&mut self, pid_max: u64) -> Option<u64> {
        let start = if self.cursor > RESERVED_PIDS { RESERVED_PIDS } else { 1 };
        let free = |from| (from..pid_max).find(|id| !self.used.contains(id));
        let id = free(self.cursor.max(start)).or_else(|| free(start))?;
        self.used.insert(id);
        self.cursor = id + 1;
        Some(id)
    }
}

impl System {
    /// The first area at or above this address, if it is one that grows down
    /// and its gap reaches below this end.
    fn gap_in_the_way(&self, above: u64, end: u64) -> Option<Vma> {
        let next = *self.vmas.get(self.vmas.partition_point(|vma| vma.start < above))?;
        (next.kind == VmaKind::GrowsDown && next.floor() < end).then_some(next)
    }

    /// `info.low_limit` of a search from the top.
    fn lowest_offered(&self) -> u64 {
        let min_addr = self.look.sysctls.mmap_min_addr;
        if self.abi == Abi::I386 { min_addr.max(PAGE) } else { PAGE }
    }

    /// `unmapped_area_topdown`: the highest place below mmap_base.
    fn highest_place(&self, len: u64) -> Option<u64> {
        let low = self.lowest_offered();
        let mut high = self.mmap_base;
        loop {
            let mut end = high;
            for vma in self.vmas.iter().rev().filter(|vma| vma.start < high) {
                if end >= vma.end.max(low) + len {
                    break;
                }
                end = end.min(vma.start);
            }
            let addr = end.checked_sub(len).filter(|&addr| addr >= low)?;
            match self.gap_in_the_way(end, end) {
                Some(stack) => high = stack.floor(),
                None => return Some(addr),
            }
        }
    }

    /// `unmapped_area`: the lowest place from an address on.
    fn lowest_place(&self, mut low: u64, len: u64) -> Option<u64> {
        loop {
            let mut addr = low;
            for vma in self.vmas.iter().filter(|vma| vma.end > low) {
                if addr + len <= vma.start {
                    break;
                }
                addr = addr.max(vma.end);
            }
            if addr + len > self.task_size {
                return None;
            }
            match self.gap_in_the_way(addr, addr + len) {
                Some(stack) => low = stack.end,
                None => return Some(addr),
            }
        }
    }

    /// `do_mmap` and `mmap_region`, of memory without access.
    fn mmap(&mut self, len: u64) -> Result<u64, Limit> {
        if self.vmas.len() as u64 > self.look.sysctls.max_map_count {
            return Err(Limit::MaxMapCount);
        }
        let addr = if self.top_down {
            self.highest_place(len).or_else(|| self.lowest_place(self.bottom_up_from, len))
        } else {
            self.lowest_place(self.mmap_base, len)
        };
        let addr = addr.ok_or(Limit::AddressSpace)?;
        if addr < self.look.sysctls.mmap_min_addr && self.look.uid != 0 {
            return Err(Limit::AddressSpace);
        }
        let pages: u64 = self.vmas.iter().map(|vma| (vma.end - vma.start) / PAGE).sum();
        if pages + len / PAGE > self.look.limits.address_space_bytes.unwrap_or(u64::MAX) / PAGE {
            return Err(Limit::RlimitAs);
        }
        let mut new = Vma { start: addr, end: addr + len, kind: VmaKind::NoAccess };
        let at = self.vmas.partition_point(|vma| vma.start < addr);
        let mut joins = at..at;
        if let Some(below) = at.checked_sub(1).map(|below| self.vmas[below])
            && (below.kind, below.end) == (new.kind, new.start)
        {
            (new.start, joins.start) = (below.start, at - 1);
        }
        if let Some(above) = self.vmas.get(at)
            && (above.kind, above.start) == (new.kind, new.end)
        {
            (new.end, joins.end) = (above.end, at + 1);
        }
        self.vmas.splice(joins, [new]);
        Ok(addr)
    }

    /// `mprotect_fixup`, to writable.
    fn mprotect(&mut self, start: u64, end: u64) -> Result<(), Limit> {
        let at = self.vmas.partition_point(|vma| vma.end <= start);
        let old = self.vmas[at];
        if let Some(above) = self.vmas.get_mut(at + 1)
            && (above.kind, above.start, old.end) == (VmaKind::Writable, end, end)
        {
            above.start = start;
            self.vmas[at].end = start;
            return Ok(());
        }
        let mut pieces =
            vec![Vma { end: start, ..old }, Vma { start, end, kind: VmaKind::Writable }];
        if end < old.end {
            pieces.push(Vma { start: end, ..old });
        }
        // Each piece but the first takes a split_vma.
        let splits = 0..pieces.len() as u64 - 1;
        let count = self.vmas.len() as u64;
        if splits.into_iter().any(|done| count + done >= self.look.sysctls.max_map_count) {
            return Err(Limit::MaxMapCount);
        }
        self.vmas.splice(at..=at, pieces);
        Ok(())
    }

    /// `pthread_create` (allocate_stack, copy_process), then `socket`.
    fn thread(&mut self) -> Result<(), Limit> {
        let addr = self.mmap(self.stack + PAGE)?;
        self.mprotect(addr + PAGE, addr + PAGE + self.stack)?;
        let (sysctls, limits) = (&self.look.sysctls, &self.look.limits);
        self.look.user_tasks += 1;
        if limits.nproc.is_some_and(|max| self.look.user_tasks > max) && self.look.uid != 0 {
            return Err(Limit::Nproc);
        }
        if self.look.tasks >= sysctls.threads_max {
            return Err(Limit::ThreadsMax);
        }
        self.look.tasks += 1;
        self.ids.alloc(sysctls.pid_max).ok_or(Limit::PidMax)?;
        if self.look.limits.nofile.is_some_and(|end| self.look.open_files >= end) {
            return Err(Limit::Nofile);
        }
        self.look.open_files += 1;
        Ok(())
    }

    /// Workers alive in the end, and what refused the next.
    pub fn run(&self) -> (u64, Limit) {
        let mut system = self.clone();
        let mut threads = 0;
        loop {
            match system.thread() {
                Ok(()) => threads += 1,
                Err(limit) => return (threads, limit),
            }
        }
    }

    /// Another area, if there is room for it. The map says so.
    pub fn add(&mut self, new: Vma) {
        let taken = |vma: &Vma| new.start < vma.end && vma.floor() < new.end;
        let moved_over = new.start < self.moved_over.end && self.moved_over.start < new.end;
        if new.end <= self.task_size && !moved_over && !self.vmas.iter().any(taken) {
            self.vmas.push(new);
            self.vmas.sort_by_key(|vma| vma.start);
        }
        let line = |vma: &Vma| {
            let (access, inode, name) = match vma.kind {
                VmaKind::GrowsDown => ("rw-p", 0, "[stack]"),
                VmaKind::Writable => ("rw-p", 0, ""),
                VmaKind::NoAccess => ("---p", 0, ""),
                VmaKind::Other => ("r-xp", 4, "/program"),
            };
            format!("{:x}-{:x} {access} 00000000 00:00 {inode} {name}\n", vma.start, vma.end)
        };
        self.look.maps = self.vmas.iter().map(line).collect();
    }

    /// The ranges that the kernel searches for a place, in order.
    pub fn searches(&self) -> Vec<Search> {
        let bottom_up =
            |start| Search { direction: Direction::BottomUp, start, end: self.task_size };
        if !self.top_down {
            return vec![bottom_up(self.mmap_base)];
        }
        let (start, end) = (self.lowest_offered(), self.mmap_base);
        let top_down = Search { direction: Direction::TopDown, start, end };
        vec![top_down, bottom_up(self.bottom_up_from)]
    }

    pub fn predicted(&self) -> (u64, Limit) {
        let prediction = predict(&self.look, self.abi, self.stack).unwrap();
        (prediction.threads, prediction.binding_limit)
    }
}

/// An address space as exec leaves it (arch/x86/mm/mmap.c,
/// `arch_pick_mmap_layout`), with a few more areas anywhere.
pub fn exec(
    look: Snapshot,
    abi: Abi,
    stack: u64,
    random: [u64; 4],
    more: &[(u64, u64, u8)],
) -> System {
    let (task_size, stack_random, mmap_random) = match abi {
        Abi::I386 => (0xc000_0000, 0x7ff, 0xff),
        Abi::Ia32 => (0xffff_e000, 0x7ff, 0xff),
        Abi::X86_64 => (0x7fff_ffff_f000_u64, 0x3f_ffff, 0xfff_ffff),
    };
    // PF_RANDOMIZE and mmap_is_legacy().
    let randomize = look.sysctls.randomize_va_space > 0 && look.personality & 0x004_0000 == 0;
    let legacy = look.sysctls.legacy_va_layout != 0 || look.personality & 0x020_0000 != 0;
    let (stack_random, mmap_random) = if randomize { (stack_random, mmap_random) } else { (0, 0) };
    let moved = (random[0] & mmap_random) * PAGE;
    let limit = look.limits.stack_bytes.unwrap_or(u64::MAX);
    let below = limit.saturating_add(stack_random * PAGE + GAP).clamp(128 << 20, task_size / 6 * 5);
    let unmapped_base = (task_size / 3).next_multiple_of(PAGE);
    let highest = (task_size - below).next_multiple_of(PAGE);
    let (mmap_base, moved_over) = if legacy {
        (unmapped_base + moved, unmapped_base..unmapped_base + moved)
    } else {
        (highest - moved, highest - moved..highest)
    };
    let mut system = System {
        abi,
        stack,
        vmas: Vec::new(),
        mmap_base,
        moved_over,
        bottom_up_from: unmapped_base + if abi == Abi::I386 { 0 } else { moved },
        top_down: !legacy,
        task_size,
        ids: Ids::new(&look.pids, look.last_pid),
        look,
    };
    let mut add = |start, pages: u64, kind| {
        system.add(Vma { start, end: start + pages * PAGE, kind });
    };
    // The program, and after a random step its heap.
    let heap = 0x52_c000 + (random[1] & 0x1fff) * PAGE;
    add(0x40_0000, 0x12c, VmaKind::Other);
    add(heap, 0x200, VmaKind::Writable);
    // What exec maps first is beside mmap_base; next to it is the signal stack.
    let (first, guard) = if legacy { (0, 6) } else { (-6_i64 as u64, -9_i64 as u64) };
    let place = |pages: u64| mmap_base.wrapping_add(pages.wrapping_mul(PAGE));
    add(place(first), 6, VmaKind::Other);
    add(place(guard), 1, VmaKind::NoAccess);
    add(place(guard.wrapping_add(1)), 2, VmaKind::Writable);
    // Above the main stack is a hole, every other time of whole stacks.
    let above = (random[2] & stack_random) * PAGE;
    let rest = if random[3] & 1 == 0 { above % (stack + PAGE) } else { 0 };
    add(task_size - (above - rest) - 0x21 * PAGE, 0x21, VmaKind::GrowsDown);
    for &(at, pages, how) in more {
        // Three of four leave a hole of whole stacks behind, or a page less.
        let hole = (1 + at % 3) * (stack + PAGE) - at % 2 * PAGE;
        let beside = system.vmas[(at >> 8) as usize % system.vmas.len()];
        let above = match how % 4 {
            0 => Some(beside.end + hole),
            1 => beside.floor().checked_sub(hole + pages * PAGE),
            2 => task_size.checked_sub(hole + pages * PAGE),
            _ => Some(at % task_size / PAGE * PAGE),
        };
        let start = above.unwrap_or(0).max(16 * PAGE);
        let kind = [VmaKind::Other, VmaKind::NoAccess, VmaKind::Writable][usize::from(how / 4 % 3)];
        system.add(Vma { start, end: start + pages * PAGE, kind });
    }
    system
}
