//! The prediction against a simulation: threads are created one by one in a
//! model of what kernel and glibc do (`system`), until a step is refused.
//!
//! The model follows the text of Linux 6.1 (mm/mmap.c, mm/mprotect.c,
//! kernel/fork.c, kernel/pid.c, lib/idr.c) and glibc 2.36
//! (nptl/allocatestack.c) with their comparison operators, and knows none of
//! the formulas that it is held against.
//!
//! One thing the formulas leave out, and there the properties stop: an id below
//! 300 can come back if all from there on are in use and the circle has not
//! passed 300, which takes a choice of ids by hand.

mod system;

use nlrig_guest::snapshot::{Failed, Memory, ProcessLimits, Sysctls};
use proptest::collection::{btree_set, vec};
use proptest::option::weighted;
use proptest::prelude::*;

use super::*;
use system::{Ids, PAGE, System, Vma, VmaKind, exec};

/// A stack of this many pages, between powers of two: from 2 MiB to 4 GiB, or
/// on 64 bits from 64 GiB to 32 TiB.
fn stack(abi: Abi) -> impl Strategy<Value = u64> {
    let bits = if abi == Abi::X86_64 { 24..33 } else { 9..20_u32 };
    (bits, any::<u64>()).prop_map(|(bits, rest)| ((1 << bits) + rest % (1 << bits)) * PAGE)
}

fn abi() -> impl Strategy<Value = Abi> {
    prop_oneof![Just(Abi::I386), Just(Abi::Ia32), Just(Abi::X86_64)]
}

/// A look in which each limit is near in one of four and far away otherwise.
fn look() -> impl Strategy<Value = Snapshot> {
    let near = |least: u64| weighted(0.25, least..least + 1000);
    let used = (0..3_u32, 0..100_u64, 0..100_u64, 0..10_u64, 0..2000_u64);
    let ids = btree_set(1..700_u32, 0..60);
    let kernel = (near(0), near(301), near(0), prop_oneof![Just(PAGE), Just(16 * PAGE)]);
    let own = (near(0), near(0), weighted(0.25, 0..1_u64 << 46));
    (used, ids, kernel, own).prop_map(|(used, ids, kernel, own)| Snapshot {
        word_bits: 32,
        page_bytes: PAGE,
        uid: used.0,
        maps: String::new(),
        personality: 0,
        tasks: used.1,
        user_tasks: used.2,
        last_pid: used.4,
        pids: ids.into_iter().collect(),
        open_files: used.3,
        data_bytes: 1 << 20,
        memory: Memory {
            total_bytes: 1 << 50,
            available_bytes: 1 << 50,
            low_free_bytes: None,
            commit_limit_bytes: 0,
            committed_bytes: 0,
            admin_reserve_bytes: 0,
            user_reserve_bytes: 0,
        },
        sysctls: Sysctls {
            threads_max: kernel.0.unwrap_or(1 << 30),
            pid_max: kernel.1.unwrap_or(1 << 22),
            max_map_count: kernel.2.unwrap_or(1 << 30),
            mmap_min_addr: kernel.3,
            legacy_va_layout: 0,
            randomize_va_space: 2,
            overcommit_memory: 1,
        },
        limits: ProcessLimits {
            stack_bytes: None,
            nofile: own.0,
            nproc: own.1,
            address_space_bytes: own.2,
            data_bytes: None,
        },
    })
}

/// What decides on the layout of an address space.
#[derive(Clone, Copy, Debug)]
struct Setup {
    /// 0 is top-down; 1 is bottom-up by sysctl, 2 by personality.
    legacy: u8,
    /// 0 is random; 1 is fixed by sysctl, 2 by personality.
    fixed: u8,
    /// Whether RLIMIT_STACK is unlimited, rather than the size of a thread's stack.
    unlimited: bool,
}

fn setup() -> impl Strategy<Value = Setup> {
    let rarely = || prop_oneof![2 => Just(0_u8), 1 => Just(1), 1 => Just(2)];
    (rarely(), rarely(), any::<bool>()).prop_map(|(legacy, fixed, unlimited)| Setup {
        legacy,
        fixed,
        unlimited,
    })
}

fn system() -> impl Strategy<Value = System> {
    let more = vec((any::<u64>(), 1..0x2000_u64, any::<u8>()), 0..6);
    (abi(), setup()).prop_flat_map(move |(abi, setup)| {
        (look(), stack(abi), any::<[u64; 4]>(), more.clone()).prop_map(
            move |(mut look, stack, random, more)| {
                look.limits.stack_bytes = (!setup.unlimited).then_some(stack);
                look.sysctls.legacy_va_layout = u64::from(setup.legacy == 1);
                look.sysctls.randomize_va_space = if setup.fixed == 1 { 0 } else { 2 };
                look.personality = if setup.legacy == 2 { 0x020_0000 } else { 0 }
                    | if setup.fixed == 2 { 0x004_0000 } else { 0 };
                exec(look, abi, stack, random, &more)
            },
        )
    })
}

/// The same with limits far away, but for those of the address space itself.
fn unlimited(mut system: System) -> System {
    system.look.sysctls.threads_max = u64::MAX;
    system.look.sysctls.pid_max = 1 << 22;
    system.look.sysctls.max_map_count = u64::MAX;
    let limits = &mut system.look.limits;
    (limits.nofile, limits.nproc, limits.address_space_bytes) = (None, None, None);
    system
}

fn room(system: &System, limit: Limit) -> Option<u64> {
    let space = Space::of(&system.look, system.abi).unwrap();
    let rooms = rooms(&system.look, &space, system.abi, system.stack);
    rooms.into_iter().find(|room| room.limit == limit).map(|room| room.most)
}

/// A number that a guest may claim.
fn absurd() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0..5000_u64, Just(u64::MAX), (0..64_u32).prop_map(|bit| 1 << bit)]
}

fn absurd_maps() -> impl Strategy<Value = String> {
    let lines = (btree_set(absurd(), 0..20), any::<u32>()).prop_map(|(edges, stack)| {
        let edges: Vec<_> = edges.into_iter().collect();
        let line = |(at, pair): (usize, &[u64])| {
            let name = if stack >> at & 1 == 1 { "[stack]" } else { "" };
            format!("{:x}-{:x} rw-p 0 0:0 0 {name}\n", pair[0], pair[1])
        };
        edges.chunks_exact(2).enumerate().map(line).collect()
    });
    prop_oneof![9 => lines, 1 => any::<String>()]
}

fn absurd_look() -> impl Strategy<Value = Snapshot> {
    (look(), absurd_maps(), vec(absurd(), 24), any::<[bool; 4]>()).prop_map(
        |(mut look, maps, numbers, limited)| {
            let mut numbers = numbers.into_iter();
            let mut number = move || numbers.next().unwrap_or(0);
            look.maps = maps;
            look.personality = number() as u32;
            let (sysctls, memory) = (&mut look.sysctls, &mut look.memory);
            for field in [
                &mut look.page_bytes,
                &mut look.tasks,
                &mut look.user_tasks,
                &mut look.last_pid,
                &mut look.open_files,
                &mut look.data_bytes,
                &mut memory.total_bytes,
                &mut memory.available_bytes,
                &mut memory.commit_limit_bytes,
                &mut memory.committed_bytes,
                &mut memory.admin_reserve_bytes,
                &mut sysctls.threads_max,
                &mut sysctls.pid_max,
                &mut sysctls.max_map_count,
                &mut sysctls.mmap_min_addr,
                &mut sysctls.legacy_va_layout,
                &mut sysctls.randomize_va_space,
                &mut sysctls.overcommit_memory,
            ] {
                *field = number();
            }
            let mut limit = |at: usize| limited[at].then(&mut number);
            look.limits.nofile = limit(0);
            look.limits.nproc = limit(1);
            look.limits.address_space_bytes = limit(2);
            look.limits.data_bytes = limit(3);
            look
        },
    )
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(384))]

    #[test]
    fn the_ranges_searched_are_read_from_the_memory_map(system in system()) {
        let areas = maps::parse(&system.look.maps).unwrap();
        let searches = layout::searches(&system.look, system.abi, &areas);
        prop_assert_eq!(searches, system.searches());
    }

    #[test]
    fn stacks_are_placed_until_no_hole_is_left(system in system()) {
        let system = unlimited(system);
        let (threads, refused) = system.run();
        prop_assert_eq!(refused, Limit::AddressSpace);
        prop_assert_eq!(room(&system, refused), Some(threads));
    }

    #[test]
    fn areas_are_split_until_there_are_too_many(system in system(), max in 0..2000_u64) {
        let mut system = unlimited(system);
        system.look.sysctls.max_map_count = max;
        let (threads, refused) = system.run();
        let formula = room(&system, Limit::MaxMapCount).unwrap();
        if refused == Limit::MaxMapCount {
            prop_assert_eq!(formula, threads);
        } else {
            prop_assert!(threads <= formula);
        }
    }

    #[test]
    fn threads_are_created_until_something_is_refused(system in system()) {
        prop_assume!(system.ids.cursor > 300 || system.look.sysctls.pid_max > 1000);
        let (threads, refused) = system.run();
        prop_assert_eq!(system.predicted().0, threads);
        prop_assert_eq!(room(&system, refused), Some(threads));
    }
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn ids_are_handed_out_until_none_is_left(
        last in 0..700_u64,
        ids in btree_set(1..700_u32, 0..400),
        max in 301..800_u64,
    ) {
        let free = |id: u64| !ids.contains(&(id as u32));
        prop_assume!(last >= 300 || (300..max).any(free));
        let mut free_pids = pids::FreePids::new(last, max);
        ids.iter().for_each(|&id| free_pids.mark_used(id));
        let used: Vec<_> = ids.iter().copied().collect();
        let mut ids = Ids::new(&used, last);
        let handed_out = std::iter::from_fn(|| ids.alloc(max)).count();
        prop_assert_eq!(free_pids.count(), handed_out as u64);
    }

    /// Room, that is: what joins the heap, or is refused to a user, may come
    /// earlier with another size.
    #[test]
    fn a_larger_stack_and_another_area_leave_no_more_room(
        system in system(),
        more in 1..1000_u64,
        at in any::<u64>(),
        pages in 1..0x10_0000_u64,
    ) {
        let mut system = unlimited(system);
        system.look.uid = 0;
        let before = room(&system, Limit::AddressSpace);
        let start = PAGE * (at % (1 << 35));
        system.add(Vma { start, end: start + pages * PAGE, kind: VmaKind::Other });
        let after = room(&system, Limit::AddressSpace);
        prop_assert!(after <= before);
        system.stack += more * PAGE;
        prop_assert!(room(&system, Limit::AddressSpace) <= after);
    }

    #[test]
    fn a_lower_limit_never_helps(
        look in absurd_look(),
        abi in abi(),
        which in 0..7_usize,
        less in absurd(),
    ) {
        let (sysctls, limits) = (look.sysctls.clone(), look.limits.clone());
        let mut lower = look.clone();
        let low = |from: u64| from.min(less);
        match which {
            0 => lower.sysctls.threads_max = low(sysctls.threads_max),
            1 => lower.sysctls.pid_max = low(sysctls.pid_max),
            2 => lower.sysctls.max_map_count = low(sysctls.max_map_count),
            3 => lower.limits.nofile = Some(limits.nofile.map_or(less, low)),
            4 => lower.limits.nproc = Some(limits.nproc.map_or(less, low)),
            5 => lower.limits.address_space_bytes = Some(limits.address_space_bytes.map_or(less, low)),
            _ => lower.memory.total_bytes = low(look.memory.total_bytes),
        }
        if let (Ok(high), Ok(low)) = (predict(&look, abi, 2 << 20), predict(&lower, abi, 2 << 20)) {
            prop_assert!(low.threads <= high.threads);
        }
    }

    #[test]
    fn no_look_and_no_outcome_is_too_absurd(
        look in absurd_look(),
        abi in abi(),
        stack in absurd(),
        seen in vec(absurd(), 6),
        holes in vec((absurd(), absurd()), 0..4),
    ) {
        let stack = stack.max(1);
        if let Ok(prediction) = predict(&look, abi, stack) {
            let rooms = rooms(&look, &Space::of(&look, abi).unwrap(), abi, stack);
            let named = (prediction.binding_limit, prediction.threads);
            prop_assert!(rooms.iter().any(|room| (room.limit, room.most) == named));
        }
        let failed = Failed { call: "pthread_create".into(), errno: 11, name: "EAGAIN".into() };
        let outcome = ThreadOutcome {
            threads: seen[0],
            sockets: 0,
            echoes: 0,
            failed,
            elapsed_ns: 0,
            tasks: seen[1],
            pid_room: seen[2],
            map_areas: seen[3],
            mapped_bytes: seen[4],
            data_bytes: seen[4],
            holes,
            mapped_end: seen[5],
            open_files: 0,
            memory_available_bytes: 0,
        };
        bound(&look, &outcome, abi, stack);
    }
}
