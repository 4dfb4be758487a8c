//! What limits the number of threads: a model from first principles.
//!
//! Everything here is arithmetic on one [`Look`] that the guest took before its
//! first thread. [`predict`] says how many threads will fit and what will stop
//! them; [`bound`] says afterwards, from what was seen then, what did.
//!
//! Sources are files of Linux 6.1 and glibc 2.36. One worker costs:
//! - one mapping of stack and guard, `mmap(stack + page)`
//!   (nptl/allocatestack.c; the guard is outside of the size since glibc 2.27);
//! - two areas: its guard and its stack (the guard joins the one before it, and
//!   `mprotect` then cuts out the stack: mm/mprotect.c, `split_vma`);
//! - one task and one task id (kernel/fork.c, `copy_process`);
//! - one file descriptor, for its socket.

use nlrig_guest::look::{Look, Outcome};
use nlrig_guest::maps::{self, Area};
use nlrig_guest::pids::Room;
use serde::{Deserialize, Serialize};

use crate::abi::Abi;

/// The gap that the kernel keeps below a stack that grows: `stack_guard_gap`,
/// 256 pages (mm/mmap.c).
const STACK_GUARD_GAP_BYTES: u64 = 256 * 4096;

/// What can stop the creation of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// No hole is left for another stack.
    AddressSpace,
    /// kernel.threads-max.
    ThreadsMax,
    /// kernel.pid_max.
    PidMax,
    /// vm.max_map_count.
    MaxMapCount,
    /// RLIMIT_NPROC.
    Nproc,
    /// RLIMIT_NOFILE.
    Nofile,
    /// RLIMIT_AS.
    RlimitAs,
    /// The guest's memory.
    Memory,
    /// The port was taken.
    Port,
    /// Nothing did.
    None,
}

impl Limit {
    /// Its name, as in reports.
    pub fn name(self) -> &'static str {
        match self {
            Limit::AddressSpace => "address-space",
            Limit::ThreadsMax => "threads-max",
            Limit::PidMax => "pid-max",
            Limit::MaxMapCount => "max-map-count",
            Limit::Nproc => "nproc",
            Limit::Nofile => "nofile",
            Limit::RlimitAs => "rlimit-as",
            Limit::Memory => "memory",
            Limit::Port => "port",
            Limit::None => "none",
        }
    }
}

/// How many threads will fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prediction {
    /// Workers alive at once.
    pub threads: u64,
    /// What will stop them.
    pub binding_limit: Limit,
}

/// How many workers each limit leaves room for. None stands for a limit that
/// does not hold here.
fn rooms(look: &Look, abi: Abi, stack_bytes: u64) -> Result<Vec<(Limit, u64)>, maps::BadLine> {
    let areas = own_areas(look)?;
    let each_bytes = stack_bytes.saturating_add(look.page_bytes);
    let fitting: u64 =
        holes(&areas, abi, look).iter().map(|(start, end)| (end - start) / each_bytes).sum();
    let mut ids = Room::new(look.last_pid, look.sysctls.pid_max);
    look.pids.iter().for_each(|&id| ids.take(id));

    let mut rooms = vec![
        (Limit::AddressSpace, fitting),
        // copy_process() refuses at nr_threads >= max_threads, and counts every
        // task but the idle ones.
        (Limit::ThreadsMax, look.sysctls.threads_max.saturating_sub(look.tasks)),
        (Limit::PidMax, ids.left()),
        (Limit::MaxMapCount, by_map_count(areas.len() as u64, look.sysctls.max_map_count)),
    ];
    // Making a stack writable is refused if it alone is larger than all memory;
    // the guest has no swap (mm/util.c, `__vm_enough_memory`, mode 0).
    if look.sysctls.overcommit_memory == 0 && stack_bytes > look.memory_total_bytes {
        rooms.push((Limit::Memory, 0));
    }
    if let Some(nofile) = look.limits.nofile {
        rooms.push((Limit::Nofile, nofile.saturating_sub(look.open_files)));
    }
    // Root is exempt, as is CAP_SYS_RESOURCE (kernel/fork.c).
    if let Some(nproc) = look.limits.nproc.filter(|_| look.uid != 0) {
        rooms.push((Limit::Nproc, nproc.saturating_sub(look.user_tasks)));
    }
    if let Some(bytes) = look.limits.address_space_bytes {
        let mapped: u64 = areas.iter().map(|area| area.end - area.start).sum();
        rooms.push((Limit::RlimitAs, bytes.saturating_sub(mapped) / each_bytes));
    }
    Ok(rooms)
}

/// How many threads with this stack a process will create that looked like
/// this before its first, and what will stop it: the limit with the least room.
///
/// # Errors
/// The look's memory map is none.
pub fn predict(look: &Look, abi: Abi, stack_bytes: u64) -> Result<Prediction, maps::BadLine> {
    let least = rooms(look, abi, stack_bytes)?.into_iter().min_by_key(|&(_, room)| room);
    Ok(least.map_or(Prediction { threads: 0, binding_limit: Limit::None }, |(limit, threads)| {
        Prediction { threads, binding_limit: limit }
    }))
}

/// What stopped the threads, from what was seen afterwards.
pub fn bound(look: &Look, outcome: &Outcome, abi: Abi, stack_bytes: u64) -> Limit {
    let each_bytes = stack_bytes.saturating_add(look.page_bytes);
    match (outcome.failed.call.as_str(), outcome.failed.name.as_str()) {
        ("socket", "EMFILE") => return Limit::Nofile,
        ("bind", "EADDRINUSE") => return Limit::Port,
        ("pthread_create", "EAGAIN" | "ENOMEM") => {}
        (_, "ENOMEM" | "ENOBUFS" | "ENFILE") => return Limit::Memory,
        _ => return Limit::None,
    }
    // All of these look alike to the caller: pthread_create says EAGAIN.
    let nproc = look.limits.nproc.filter(|_| look.uid != 0);
    let space = look.limits.address_space_bytes;
    if outcome.tasks >= look.sysctls.threads_max {
        Limit::ThreadsMax
    } else if outcome.pid_room == 0 {
        Limit::PidMax
    } else if nproc.is_some_and(|nproc| look.user_tasks.saturating_add(outcome.threads) >= nproc) {
        Limit::Nproc
    } else if by_map_count(outcome.map_areas, look.sysctls.max_map_count) == 0 {
        Limit::MaxMapCount
    } else if space.is_some_and(|bytes| outcome.mapped_bytes.saturating_add(each_bytes) > bytes) {
        Limit::RlimitAs
    } else if largest_hole_bytes(look, outcome, abi) < each_bytes {
        Limit::AddressSpace
    } else {
        Limit::Memory
    }
}

/// How many workers can still be created by a process with this many areas.
///
/// The mapping of a stack joins the guard before it; `mprotect` then splits it
/// twice, and each split needs `map_count < max` (mm/mmap.c, `split_vma`). So
/// the k-th worker comes into being if `areas + 2 (k - 1) <= max - 2`.
fn by_map_count(areas: u64, max: u64) -> u64 {
    match max.checked_sub(areas.saturating_add(2)) {
        Some(spare) => spare / 2 + 1,
        None => 0,
    }
}

/// The areas that the kernel counts.
fn own_areas(look: &Look) -> Result<Vec<Area>, maps::BadLine> {
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
fn holes(areas: &[Area], abi: Abi, look: &Look) -> Vec<(u64, u64)> {
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
fn largest_hole_bytes(look: &Look, outcome: &Outcome, abi: Abi) -> u64 {
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

#[cfg(test)]
mod tests {
    use nlrig_guest::look::{Failed, Limits, Sysctls};

    use super::*;

    /// A static i386 program with a 2M stack, as seen in a guest.
    const I386: &str = "\
08048000-08149000 r-xp 00000000 00:14 4          /run/nlrig/guest/workloads/threads
0976f000-09a13000 rw-p 00000000 00:00 0          [heap]
b7ef2000-b7ef6000 r--p 00000000 00:00 0          [vvar]
b7ef6000-b7ef8000 r-xp 00000000 00:00 0          [vdso]
bf87c000-bf89d000 rw-p 00000000 00:00 0          [stack]
";

    fn look() -> Look {
        Look {
            word_bits: 32,
            page_bytes: 4096,
            uid: 0,
            maps: I386.to_string(),
            tasks: 40,
            user_tasks: 40,
            last_pid: 60,
            pids: (1..=40).chain([60]).collect(),
            open_files: 4,
            memory_total_bytes: 1 << 30,
            memory_available_bytes: 1 << 30,
            sysctls: Sysctls {
                threads_max: 1 << 20,
                pid_max: 1 << 20,
                max_map_count: 1 << 20,
                mmap_min_addr: 4096,
                overcommit_memory: 0,
            },
            limits: Limits {
                stack_bytes: Some(2 << 20),
                nofile: None,
                nproc: None,
                address_space_bytes: None,
            },
        }
    }

    fn predicted(look: &Look) -> (u64, Limit) {
        let prediction = predict(look, Abi::I386, 2 << 20).unwrap();
        (prediction.threads, prediction.binding_limit)
    }

    #[test]
    fn every_hole_takes_as_many_stacks_as_fit() {
        let each = (2 << 20) + 4096;
        let by_hand = (0x0804_8000 - 0x1000) / each
            + (0x0976_f000 - 0x0814_9000) / each
            + (0xb7ef_2000_u64 - 0x09a1_3000) / each
            + (0xbf87_c000_u64 - (1 << 20) - 0xb7ef_8000) / each
            + (0xc000_0000_u64 - 0xbf89_d000) / each;
        assert_eq!(predicted(&look()), (by_hand, Limit::AddressSpace));
        assert!((1527..=1531).contains(&by_hand), "{by_hand}");
    }

    /// 24 MiB less the 972 pages that are mapped hold ten stacks of 513 pages.
    #[test]
    fn each_limit_binds_when_it_is_the_lowest() {
        type Case = (Limit, u64, fn(&mut Look));
        let cases: [Case; 7] = [
            (Limit::Memory, 0, |look| look.memory_total_bytes = 1 << 20),
            (Limit::ThreadsMax, 100 - 40, |look| look.sysctls.threads_max = 100),
            (Limit::PidMax, 301 - 61, |look| look.sysctls.pid_max = 301),
            (Limit::MaxMapCount, (100 - 2 - 5) / 2 + 1, |look| look.sysctls.max_map_count = 100),
            (Limit::Nofile, 64 - 4, |look| look.limits.nofile = Some(64)),
            (Limit::Nproc, 50 - 40, |look| {
                look.uid = 1000;
                look.limits.nproc = Some(50);
            }),
            (Limit::RlimitAs, 10, |look| look.limits.address_space_bytes = Some(24 << 20)),
        ];
        for (limit, threads, set) in cases {
            let mut look = look();
            set(&mut look);
            assert_eq!(predicted(&look), (threads, limit));
        }
    }

    #[test]
    fn root_is_not_held_to_nproc() {
        let mut look = look();
        look.limits.nproc = Some(50);
        assert_eq!(predicted(&look).1, Limit::AddressSpace);
    }

    #[test]
    fn the_page_vsyscall_is_not_counted() {
        let mut look = look();
        look.sysctls.max_map_count = 100;
        let without = predicted(&look);
        look.maps += "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n";
        assert_eq!(predicted(&look), without);
    }

    #[test]
    fn what_stopped_them_is_told_by_evidence() {
        let outcome = |call: &str, name: &str| Outcome {
            threads: 10,
            sockets: 10,
            echoes: 10,
            failed: Failed { call: call.into(), errno: 0, name: name.into() },
            elapsed_ns: 1,
            tasks: 50,
            pid_room: 1000,
            map_areas: 25,
            mapped_bytes: 1 << 20,
            holes: vec![(0x1000, 0x10_0000), (0x4000_0000, 0x5000_0000)],
            mapped_end: 0xbff0_0000,
            open_files: 14,
            memory_available_bytes: 1 << 30,
        };
        let create = || outcome("pthread_create", "EAGAIN");
        let told = |look: &Look, outcome: &Outcome| bound(look, outcome, Abi::I386, 2 << 20);
        assert_eq!(told(&look(), &outcome("socket", "EMFILE")), Limit::Nofile);
        assert_eq!(told(&look(), &outcome("bind", "EADDRINUSE")), Limit::Port);
        assert_eq!(told(&look(), &outcome("socket", "ENOMEM")), Limit::Memory);
        assert_eq!(told(&look(), &create()), Limit::Memory, "a hole is left");
        let full = Outcome { holes: vec![(0x1000, 0x10_0000)], ..create() };
        assert_eq!(told(&look(), &full), Limit::AddressSpace);
        let room_above = Outcome { mapped_end: 0xbf00_0000, ..full };
        assert_eq!(told(&look(), &room_above), Limit::Memory);
        let mut low = look();
        low.sysctls.threads_max = 50;
        assert_eq!(told(&low, &create()), Limit::ThreadsMax);
        assert_eq!(told(&look(), &Outcome { pid_room: 0, ..create() }), Limit::PidMax);
        let mut low = look();
        low.sysctls.max_map_count = 26;
        assert_eq!(told(&low, &create()), Limit::MaxMapCount);
    }

    #[test]
    fn a_map_that_is_none_is_an_error() {
        let mut look = look();
        look.maps = "hello".to_string();
        assert!(predict(&look, Abi::I386, 2 << 20).is_err());
    }
}

#[cfg(test)]
mod properties;
