//! Where the stacks of threads are: a model of the kernel's search and of glibc's
//! arenas, from which the probability of a duplicate follows.
//!
//! - The kernel gives a new mapping the top of the highest hole that it fits into
//!   (mm/mmap.c of Linux 6.1, `generic_get_unmapped_area_topdown`). A thread's
//!   stack is one mapping of its size and a page of guard (glibc 2.36,
//!   nptl/allocatestack.c).
//! - A thread's first malloc() makes an arena for it, until there are eight for
//!   each processor (two with 32 bits), the main thread's among them
//!   (malloc/arena.c, `arena_get2`). An arena's heap is aligned to its size: glibc
//!   maps twice as much and gives back what is too much, or takes the place above
//!   the last one if that is still free (`alloc_new_heap`).
//! - The top of the first stack is random by pages (arch/x86/mm/mmap.c,
//!   `arch_mmap_rnd`, `mmap_base`): by 2^28 of them with 64 bits, by 2^8 with 32,
//!   which is a multiple of what a heap is aligned to, so any place within that is
//!   as likely as any other. There are few enough to try them all.

use nlrig_guest::ports::Formula;

use super::formula::port;
use crate::abi::Arch;

/// A page on x86.
const PAGE_BYTES: u64 = 4096;
/// How far below the top of its stack a thread's control block is: less than a
/// page, and the same for all.
const BELOW_TOP_BYTES: u64 = 0x700;

/// What decides where stacks go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackLayout {
    /// The word size of the program.
    pub program: Arch,
    /// The size of each stack, without its guard.
    pub stack_bytes: u64,
    /// Whether each thread calls malloc() for a few bytes before the next one is
    /// created.
    pub malloc: bool,
    /// Processors that the process may use.
    pub processors: u32,
}

impl StackLayout {
    /// HEAP_MAX_SIZE of malloc/arena.c: twice the most that malloc() ever takes
    /// from a heap.
    fn heap_bytes(self) -> u64 {
        match self.program {
            Arch::X86_64 => 64 << 20,
            Arch::I386 => 1 << 20,
        }
    }

    /// Arenas that threads can have (NARENAS_FROM_NCORES, less the main thread's).
    fn arenas(self) -> u64 {
        let each = match self.program {
            Arch::X86_64 => 8,
            Arch::I386 => 2,
        };
        (u64::from(self.processors.max(1)) * each).saturating_sub(1)
    }

    /// The tops of so many stacks, in the order of their creation, if the first
    /// one is here.
    pub fn tops(self, first: u64, threads: usize) -> Vec<u64> {
        let mut space = Space::below(first);
        let mut heaps = Heaps { each: self.heap_bytes(), above_last: None };
        let mut arenas = if self.malloc { self.arenas() } else { 0 };
        let stack_bytes = self.stack_bytes.saturating_add(PAGE_BYTES);
        let mut tops = Vec::with_capacity(threads);
        for _ in 0..threads {
            let Some(start) = space.map(stack_bytes) else { break };
            tops.push(start + stack_bytes);
            if arenas > 0 {
                arenas -= 1;
                heaps.make(&mut space);
            }
        }
        tops
    }

    /// How likely it is that there are duplicates among the first n threads of a
    /// process by the Linux Journal's formula, for each n from 1.
    pub fn probabilities(self, threads: usize) -> Vec<f64> {
        let places = self.heap_bytes() / PAGE_BYTES;
        // Far enough below the end of the address space, and above its beginning.
        let high = match self.program {
            Arch::X86_64 => 0x7f00_0000_0000,
            Arch::I386 => 0xb000_0000,
        };
        let mut with = vec![0_u64; threads];
        for place in 0..places {
            let tops = self.tops(high + place * PAGE_BYTES, threads);
            if let Some(first) = first_collision(&tops) {
                with[first..].iter_mut().for_each(|count| *count += 1);
            }
        }
        with.into_iter().map(|count| count as f64 / places as f64).collect()
    }
}

/// Which stack, from 0, is the first whose thread has the port of one before it.
fn first_collision(tops: &[u64]) -> Option<usize> {
    let mut taken = Vec::with_capacity(tops.len());
    tops.iter().position(|top| {
        let own = top.wrapping_sub(BELOW_TOP_BYTES);
        let port = port(Formula::LinuxJournal, own, 0, 0);
        let duplicate = taken.contains(&port);
        taken.push(port);
        duplicate
    })
}

/// The paper's probability of a duplicate among n threads: 1 - 15! / ((16 - n)!
/// 16^(n - 1)), evaluated. It takes the four bits that differ for random.
pub fn by_the_paper(threads: usize) -> f64 {
    let distinct: f64 =
        (1..threads).map(|taken| 16.0 - taken as f64).map(|left| left.max(0.0) / 16.0).product();
    1.0 - distinct
}

/// The part of an address space that is below a place, as holes from the top down.
struct Space {
    holes: Vec<(u64, u64)>,
}

impl Space {
    fn below(end: u64) -> Space {
        Space { holes: vec![(0, end)] }
    }

    /// Maps so many bytes where the kernel does: where they begin.
    fn map(&mut self, bytes: u64) -> Option<u64> {
        let hole = self.holes.iter_mut().find(|(start, end)| end - start >= bytes)?;
        hole.1 -= bytes;
        Some(hole.1)
    }

    /// Maps them here if nobody has the place, else where the kernel does.
    fn map_at(&mut self, at: u64, bytes: u64) -> Option<u64> {
        let fits = |(start, end): &(u64, u64)| *start <= at && at + bytes <= *end;
        let Some(index) = self.holes.iter().position(fits) else { return self.map(bytes) };
        let (start, end) = self.holes[index];
        self.holes.splice(index..=index, [(at + bytes, end), (start, at)]);
        Some(at)
    }

    fn unmap(&mut self, start: u64, bytes: u64) {
        let (mut start, mut end) = (start, start + bytes);
        // What it touches becomes one hole with it.
        self.holes.retain(|&(other_start, other_end)| {
            let touches = other_start <= end && start <= other_end;
            if touches {
                start = start.min(other_start);
                end = end.max(other_end);
            }
            !touches
        });
        let place = self.holes.iter().position(|&(other, _)| other < start);
        self.holes.insert(place.unwrap_or(self.holes.len()), (start, end));
    }
}

/// How glibc makes heaps for arenas.
struct Heaps {
    each: u64,
    /// The place above the last heap, if that came aligned (`aligned_heap_area`).
    above_last: Option<u64>,
}

impl Heaps {
    fn make(&mut self, space: &mut Space) {
        let each = self.each;
        if let Some(at) = self.above_last.take()
            && let Some(start) = space.map_at(at, each)
        {
            if start % each == 0 {
                return;
            }
            space.unmap(start, each);
        }
        let Some(start) = space.map(2 * each) else { return };
        let heap = start.next_multiple_of(each);
        if heap > start {
            space.unmap(start, heap - start);
        } else {
            self.above_last = Some(heap + each);
        }
        space.unmap(heap + each, start + each - heap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: StackLayout =
        StackLayout { program: Arch::X86_64, stack_bytes: 8 << 20, malloc: false, processors: 2 };

    #[test]
    fn without_malloc_sixteen_threads_never_clash_and_seventeen_always_do() {
        for program in [Arch::I386, Arch::X86_64] {
            let found = StackLayout { program, ..PLAIN }.probabilities(20);
            assert!(found[..16].iter().all(|p| *p == 0.0), "{found:?}");
            assert!(found[16..].iter().all(|p| *p == 1.0), "{found:?}");
        }
    }

    #[test]
    fn with_malloc_it_lies_between_and_grows() {
        let found = StackLayout { malloc: true, ..PLAIN }.probabilities(20);
        assert!(found.windows(2).all(|pair| pair[0] <= pair[1]), "{found:?}");
        assert!(found[1] < 0.01 && found[16] == 1.0, "{found:?}");
        // A simulation by other hands gave 0.60 to 0.69 for ten threads.
        assert!((0.60..0.69).contains(&found[9]), "{found:?}");
    }

    #[test]
    fn the_first_heap_leaves_room_for_stacks_above_it() {
        // 64 MiB less 24 from the top of the first stack down to the heap.
        let first = 0x7f00_0000_0000 + (24 << 20);
        let tops = StackLayout { malloc: true, ..PLAIN }.tops(first, 6);
        let each = (8 << 20) + 4096;
        // Two stacks fit above the first heap, the next is below all heaps there are.
        assert_eq!(tops[..2], [first, first - each]);
        assert!(tops[2..].windows(2).all(|pair| pair[0] != pair[1]), "{tops:x?}");
    }

    #[test]
    fn holes_are_taken_apart_and_put_together() {
        let mut space = Space::below(100);
        assert_eq!(space.map(10), Some(90));
        assert_eq!(space.map(10), Some(80));
        assert_eq!(space.map_at(40, 10), Some(40));
        assert_eq!(space.holes, [(50, 80), (0, 40)]);
        space.unmap(85, 5);
        assert_eq!(space.map(10), Some(70));
        space.unmap(40, 10);
        assert_eq!(space.holes, [(85, 90), (0, 70)]);
        assert_eq!(space.map(1000), None);
    }

    #[test]
    fn the_papers_formula_evaluated() {
        let percent = |n| (by_the_paper(n) * 1000.0).round() / 10.0;
        assert_eq!((percent(1), percent(7), percent(8), percent(10)), (0.0, 78.5, 87.9, 97.4));
        assert_eq!(by_the_paper(17), 1.0);
    }
}
