//! What limits the number of threads: a model from first principles.
//!
//! The model is arithmetic on one [`Snapshot`], which the guest takes before its first
//! thread. [`predict`] returns the number of threads that fit and the limit that
//! stops them. [`bound`] returns the limit that did, from the guest's [`ThreadOutcome`].
//!
//! Sources are files of Linux 6.1 and glibc 2.36. One worker costs:
//! - one mapping of stack and guard, `mmap(stack + page)`
//!   (nptl/allocatestack.c; the guard is outside of the size since glibc 2.27);
//! - two areas, its guard and its stack. The mapping joins the guard above it, and
//!   `mprotect` then cuts out the stack (mm/mprotect.c, `split_vma`). A stack that
//!   ends where the heap begins becomes one area with the heap;
//! - one task and one task id (kernel/fork.c, `copy_process`);
//! - one file descriptor, for its socket.
//!
//! Each of these limits is predicted exactly. Memory is predicted as a range: see
//! `memory`.

use std::fmt;
use std::ops::RangeInclusive;

use nlrig_guest::snapshot::{Snapshot, ThreadOutcome};
use nlrig_guest::{maps, pids};
use serde::{Deserialize, Serialize};

pub use self::layout::{Direction, Search};
use self::space::Space;
use crate::abi::Abi;

/// A page on x86.
const PAGE_BYTES: u64 = 4096;

/// What can stop the creation of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// No gap that `mmap` searches is left for another stack.
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
    /// RLIMIT_DATA.
    RlimitData,
    /// The guest's memory.
    Memory,
    /// fs.file-max.
    FileMax,
    /// The port was taken.
    Port,
    /// No limit that the model knows: all of them leave room.
    None,
}

impl Limit {
    /// The limit's name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Limit::AddressSpace => "address-space",
            Limit::ThreadsMax => "threads-max",
            Limit::PidMax => "pid-max",
            Limit::MaxMapCount => "max-map-count",
            Limit::Nproc => "nproc",
            Limit::Nofile => "nofile",
            Limit::RlimitAs => "rlimit-as",
            Limit::RlimitData => "rlimit-data",
            Limit::Memory => "memory",
            Limit::FileMax => "file-max",
            Limit::Port => "port",
            Limit::None => "none",
        }
    }
}

/// The number of threads that fit, and the limit that stops them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prediction {
    /// Workers alive at once; the upper bound if `threads_at_least` is given.
    pub threads: u64,
    /// The lower bound. It is given if memory binds, or may bind before the limit
    /// that is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads_at_least: Option<u64>,
    /// The limit that stops them.
    pub binding_limit: Limit,
    /// The stacks that each search of `mmap` places, if the address space binds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<Placed>,
}

/// The stacks that one search for a free place finds room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The range and the direction of the search.
    #[serde(flatten)]
    pub search: Search,
    /// The number of stacks.
    pub stacks: u64,
}

impl Prediction {
    /// Whether the prediction allows a count and the limit that bound. The count is
    /// a range, as the last threads of a program that was killed are not seen.
    pub fn agrees(&self, threads: RangeInclusive<u64>, limit: Limit) -> bool {
        match self.threads_at_least {
            Some(least) if limit == Limit::Memory => {
                least <= *threads.end() && *threads.start() <= self.threads
            }
            _ => threads.contains(&self.threads) && limit == self.binding_limit,
        }
    }
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.threads_at_least {
            Some(least) => write!(f, "{least} to {}, bound by ", self.threads)?,
            None => write!(f, "{}, bound by ", self.threads)?,
        }
        f.write_str(self.binding_limit.name())?;
        for (index, placed) in self.searches.iter().enumerate() {
            write!(f, "{}{placed}", if index == 0 { ": " } else { ", then " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.stacks, self.search)
    }
}

/// The number of workers that a limit leaves room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    limit: Limit,
    /// The lower bound.
    least: u64,
    /// The upper bound.
    most: u64,
}

impl Room {
    fn exact(limit: Limit, workers: u64) -> Room {
        Room { limit, least: workers, most: workers }
    }
}

/// The bytes of address space that one worker takes: its stack and its guard.
fn each_bytes(look: &Snapshot, stack_bytes: u64) -> u64 {
    stack_bytes.saturating_add(look.page_bytes).max(1)
}

/// The room that each limit leaves, in the order in which [`bound`] checks them. Of
/// two limits with the same room the first one is named.
fn rooms(look: &Snapshot, space: &Space, abi: Abi, stack_bytes: u64) -> Vec<Room> {
    let each_bytes = each_bytes(look, stack_bytes);
    let mut ids = pids::FreePids::new(look.last_pid, look.sysctls.pid_max);
    look.pids.iter().for_each(|&id| ids.mark_used(id));

    // copy_process() refuses at nr_threads >= max_threads, and counts every
    // task but the idle ones.
    let mut rooms = vec![
        Room::exact(Limit::ThreadsMax, look.sysctls.threads_max.saturating_sub(look.tasks)),
        Room::exact(Limit::PidMax, ids.count()),
    ];
    // Root is exempt, as is CAP_SYS_RESOURCE (kernel/fork.c).
    if let Some(nproc) = look.limits.nproc.filter(|_| look.uid != 0) {
        rooms.push(Room::exact(Limit::Nproc, nproc.saturating_sub(look.user_tasks)));
    }
    let by_map_count = space.by_map_count(each_bytes, look.sysctls.max_map_count);
    rooms.push(Room::exact(Limit::MaxMapCount, by_map_count));
    if let Some(bytes) = look.limits.address_space_bytes {
        let left = bytes.saturating_sub(space.mapped_bytes());
        rooms.push(Room::exact(Limit::RlimitAs, left / each_bytes));
    }
    // Only writable pages count, so the guard does not (mm/mmap.c,
    // `may_expand_vm`, called by `mprotect`).
    if let Some(bytes) = look.limits.data_bytes {
        let left = bytes.saturating_sub(look.data_bytes);
        rooms.push(Room::exact(Limit::RlimitData, left / stack_bytes.max(1)));
    }
    let stacks = space.stacks(each_bytes).iter().map(|placed| placed.stacks).sum();
    rooms.push(Room::exact(Limit::AddressSpace, stacks));
    rooms.extend(memory::rooms(look, abi, stack_bytes, each_bytes));
    if let Some(nofile) = look.limits.nofile {
        rooms.push(Room::exact(Limit::Nofile, nofile.saturating_sub(look.open_files)));
    }
    rooms
}

/// Predicts the number of threads that a process creates, from its look before the
/// first one. The limit with the least room binds.
///
/// # Errors
/// The look's memory map cannot be parsed.
pub fn predict(look: &Snapshot, abi: Abi, stack_bytes: u64) -> Result<Prediction, maps::BadLine> {
    let space = Space::of(look, abi)?;
    let rooms = rooms(look, &space, abi, stack_bytes);
    let surely = rooms.iter().map(|room| room.least).min().unwrap_or(0);
    let at_most = rooms.iter().min_by_key(|room| room.most);
    let (threads, binding_limit) = at_most.map_or((0, Limit::None), |room| (room.most, room.limit));
    Ok(Prediction {
        threads,
        threads_at_least: (surely < threads).then_some(surely),
        binding_limit,
        searches: match binding_limit {
            Limit::AddressSpace => space.stacks(each_bytes(look, stack_bytes)),
            _ => Vec::new(),
        },
    })
}

/// The limit that stopped the threads, from the guest's evidence after the last one.
pub fn bound(look: &Snapshot, outcome: &ThreadOutcome, abi: Abi, stack_bytes: u64) -> Limit {
    let each_bytes = each_bytes(look, stack_bytes);
    match (outcome.failed.call.as_str(), outcome.failed.name.as_str()) {
        ("socket", "EMFILE") => return Limit::Nofile,
        ("bind", "EADDRINUSE") => return Limit::Port,
        ("pthread_create", "EAGAIN" | "ENOMEM") => {}
        // The kernel found a place below vm.mmap_min_addr and then refused it.
        ("pthread_create", "EPERM") => return Limit::AddressSpace,
        ("socket", "ENFILE") => return Limit::FileMax,
        (_, "ENOMEM" | "ENOBUFS") => return Limit::Memory,
        _ => return Limit::None,
    }
    // All other limits look alike to the caller: pthread_create returns EAGAIN.
    let nproc = look.limits.nproc.filter(|_| look.uid != 0);
    let address_space = look.limits.address_space_bytes;
    let data = look.limits.data_bytes;
    let space = Space::of(look, abi).ok();
    let gap_bytes = space.map_or(0, |space| space.largest_gap_bytes(outcome));
    let may_be_memory = memory::rooms(look, abi, stack_bytes, each_bytes)
        .iter()
        .any(|room| room.least <= outcome.threads);
    if outcome.tasks >= look.sysctls.threads_max {
        Limit::ThreadsMax
    } else if outcome.pid_room == 0 {
        Limit::PidMax
    } else if nproc.is_some_and(|nproc| look.user_tasks.saturating_add(outcome.threads) >= nproc) {
        Limit::Nproc
    } else if outcome.map_areas.saturating_add(2) > look.sysctls.max_map_count {
        Limit::MaxMapCount
    } else if address_space
        .is_some_and(|bytes| outcome.mapped_bytes.saturating_add(each_bytes) > bytes)
    {
        Limit::RlimitAs
    } else if data.is_some_and(|bytes| outcome.data_bytes.saturating_add(stack_bytes) > bytes) {
        Limit::RlimitData
    } else if gap_bytes < each_bytes {
        Limit::AddressSpace
    } else if may_be_memory {
        Limit::Memory
    } else {
        Limit::None
    }
}

mod layout;
mod memory;
mod space;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
