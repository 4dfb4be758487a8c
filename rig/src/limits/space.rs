//! The address space: the places of stacks, their number, and the areas they cost.
//!
//! Each search of the layout fills the gaps in its range one after the other, stack
//! against stack. A search from the top starts at the end of the highest gap, one
//! from the bottom at the start of the lowest. The next search gets what is left.

use nlrig_guest::maps::{self, Area, Kind};
use nlrig_guest::snapshot::{Snapshot, ThreadOutcome};

use super::Placed;
use super::layout::{self, Direction, STACK_GUARD_GAP_BYTES, Search};
use crate::abi::Abi;

/// The address space of a process before its first thread.
pub struct Space {
    areas: Vec<Area>,
    searches: Vec<Search>,
    /// The end of the process's part of the address space.
    task_size: u64,
    /// The lowest address that is granted.
    lowest_granted: u64,
}

/// A gap between two areas.
#[derive(Clone, Copy)]
struct Gap {
    start: u64,
    end: u64,
    /// Writable memory, such as the heap, starts where the gap ends.
    writable_above: bool,
    /// Memory without access ends where the gap starts.
    no_access_below: bool,
}

/// The stacks that one search places in one gap.
struct Batch {
    stacks: u64,
    first: Joins,
    last: Joins,
    /// The next place in the gap is offered and then refused with EPERM.
    refused: bool,
}

/// The neighbours that a stack becomes one area with.
#[derive(Clone, Copy, Default)]
struct Joins {
    /// Writable memory above it: the heap.
    above: bool,
    /// Memory without access below it.
    below: bool,
}

impl Joins {
    /// The areas that a worker costs, and the least distance of their number from the
    /// maximum before the worker is created.
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
    /// The look's memory map cannot be parsed.
    pub fn of(look: &Snapshot, abi: Abi) -> Result<Space, maps::BadLine> {
        let mut areas = maps::parse(&look.maps)?;
        areas.retain(|area| area.start < maps::KERNEL);
        Ok(Space {
            searches: layout::searches(look, abi, &areas),
            areas,
            task_size: layout::task_size(abi),
            lowest_granted: layout::lowest_granted(look, abi),
        })
    }

    /// The number of areas.
    pub fn areas(&self) -> u64 {
        self.areas.len() as u64
    }

    /// Bytes in all areas.
    pub fn mapped_bytes(&self) -> u64 {
        self.areas.iter().map(|area| area.end - area.start).sum()
    }

    /// The number of stacks, each with its guard, that each search places.
    pub fn stacks(&self, each_bytes: u64) -> Vec<Placed> {
        let placed = |(search, batches): (Search, Vec<Batch>)| Placed {
            search,
            stacks: batches.iter().map(|batch| batch.stacks).sum(),
        };
        self.fill(each_bytes).into_iter().map(placed).collect()
    }

    /// The number of workers until vm.max_map_count refuses one.
    pub fn by_map_count(&self, each_bytes: u64, max: u64) -> u64 {
        let (mut areas, mut workers) = (self.areas(), 0);
        let filled = self.fill(each_bytes);
        let runs = filled.iter().flat_map(|(_, batches)| batches).flat_map(Batch::runs);
        // Behind the last gap the formula assumes one more without end.
        for (run, joins) in runs.chain([(u64::MAX, Joins::default())]) {
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

    /// The largest gap that some search reaches, of those that the guest listed
    /// after its last thread.
    pub fn largest_gap_bytes(&self, outcome: &ThreadOutcome) -> u64 {
        let stack = self.areas.iter().find(|area| area.grows_down);
        let usable = |&(start, end): &(u64, u64)| {
            let below_stack = stack.is_some_and(|stack| stack.start == end);
            let end = if below_stack { end.saturating_sub(STACK_GUARD_GAP_BYTES) } else { end };
            let reached =
                |search: &Search| end.min(search.end).saturating_sub(start.max(search.start));
            self.searches.iter().map(reached).max().unwrap_or(0)
        };
        // What is above the last mapping is a gap too.
        let above = [(outcome.mapped_end, self.task_size)];
        outcome.holes.iter().chain(&above).map(usable).max().unwrap_or(0)
    }

    /// The batches of each search, in the order in which the gaps are filled, until a
    /// place is refused.
    fn fill(&self, each_bytes: u64) -> Vec<(Search, Vec<Batch>)> {
        let mut gaps = self.gaps();
        let mut filled = Vec::new();
        for &search in &self.searches {
            if search.direction == Direction::TopDown {
                gaps.reverse();
            }
            let (mut batches, mut left) = (Vec::new(), Vec::new());
            for gap in gaps {
                let (batch, rest) = gap.fill(search, each_bytes, self.lowest_granted);
                batches.extend(batch);
                left.extend(rest);
            }
            left.sort_by_key(|gap| gap.start);
            gaps = left;
            let refused = batches.iter().position(|batch| batch.refused);
            batches.truncate(refused.map_or(usize::MAX, |last| last + 1));
            filled.push((search, batches));
            if refused.is_some() {
                break;
            }
        }
        filled
    }

    /// The gaps between the areas, by address.
    fn gaps(&self) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let mut below: Option<&Area> = None;
        for above in self.areas.iter().map(Some).chain([None]) {
            let start = below.map_or(0, |area| area.end);
            let end = above.map_or(self.task_size, |area| {
                let gap = if area.grows_down { STACK_GUARD_GAP_BYTES } else { 0 };
                area.start.saturating_sub(gap)
            });
            if start < end {
                gaps.push(Gap {
                    start,
                    end,
                    writable_above: above.is_some_and(|area| area.kind == Kind::Writable),
                    no_access_below: below.is_some_and(|area| area.kind == Kind::NoAccess),
                });
            }
            below = above;
        }
        gaps
    }
}

impl Gap {
    /// The batch that a search places in this gap, if any, and the gaps that are left.
    fn fill(
        self,
        search: Search,
        each_bytes: u64,
        lowest_granted: u64,
    ) -> (Option<Batch>, Vec<Gap>) {
        let (start, end) = (self.start.max(search.start), self.end.min(search.end));
        let stacks = end.saturating_sub(start) / each_bytes;
        if stacks == 0 {
            return (None, vec![self]);
        }
        let bytes = stacks * each_bytes;
        let (start, end) = match search.direction {
            Direction::TopDown => (end - bytes, end),
            Direction::BottomUp => (start, start + bytes),
        };
        let granted = match search.direction {
            Direction::TopDown => stacks.min(end.saturating_sub(lowest_granted) / each_bytes),
            Direction::BottomUp if start < lowest_granted => 0,
            Direction::BottomUp => stacks,
        };
        let above = Joins { above: self.writable_above && end == self.end, below: false };
        let below = Joins { above: false, below: self.no_access_below && start == self.start };
        let (first, last) = match search.direction {
            Direction::TopDown => (above, below),
            Direction::BottomUp => (below, above),
        };
        let batch = Batch { stacks: granted, first, last, refused: granted < stacks };
        // Stacks that are placed beside this batch later cost as much as in the open:
        // `mprotect` cuts them off the guard above, and their own guard does not join
        // a writable neighbour.
        let left = [
            Gap { end: start, writable_above: false, ..self },
            Gap { start: end, no_access_below: false, ..self },
        ];
        (Some(batch), left.into_iter().filter(|gap| gap.start < gap.end).collect())
    }
}

impl Batch {
    /// Runs of stacks that join the same neighbours, in the order of creation.
    fn runs(&self) -> impl Iterator<Item = (u64, Joins)> + use<> {
        let last = if self.refused { Joins::default() } else { self.last };
        let both =
            Joins { above: self.first.above || last.above, below: self.first.below || last.below };
        let runs = match self.stacks {
            0 => [(0, both); 3],
            1 => [(1, both), (0, both), (0, both)],
            stacks => [(1, self.first), (stacks - 2, Joins::default()), (1, last)],
        };
        runs.into_iter()
    }
}
