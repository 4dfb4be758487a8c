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
//!   `mprotect` then cuts out the stack: mm/mprotect.c, `split_vma`); but the
//!   stack that ends where the heap begins becomes one area with it;
//! - one task and one task id (kernel/fork.c, `copy_process`);
//! - one file descriptor, for its socket.
//!
//! All of this is counted to the last one. Memory is not: see `memory`.

use std::fmt;
use std::ops::RangeInclusive;

use nlrig_guest::look::{Look, Outcome};
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
            Limit::RlimitData => "rlimit-data",
            Limit::Memory => "memory",
            Limit::FileMax => "file-max",
            Limit::Port => "port",
            Limit::None => "none",
        }
    }
}

/// How many threads will fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prediction {
    /// Workers alive at once; at most so many if there is a lower bound.
    pub threads: u64,
    /// At least so many: memory binds, or may bind before the limit that is
    /// named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads_at_least: Option<u64>,
    /// What will stop them.
    pub binding_limit: Limit,
    /// Where the stacks go, search by search, if the address space will stop them.
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
    /// Whether so many workers, stopped by this, may be what was predicted: a
    /// program that was killed is not counted to the last one.
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

/// For how many workers a limit leaves room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    limit: Limit,
    /// For so many surely.
    least: u64,
    /// For more surely not.
    most: u64,
}

impl Room {
    fn exact(limit: Limit, workers: u64) -> Room {
        Room { limit, least: workers, most: workers }
    }
}

/// What one worker takes of the address space: its stack and the guard.
fn each_bytes(look: &Look, stack_bytes: u64) -> u64 {
    stack_bytes.saturating_add(look.page_bytes).max(1)
}

/// How many workers each limit that holds here leaves room for, in the order in
/// which [`bound`] looks at them: where two are equal the first is named.
fn rooms(look: &Look, space: &Space, abi: Abi, stack_bytes: u64) -> Vec<Room> {
    let each_bytes = each_bytes(look, stack_bytes);
    let mut ids = pids::Room::new(look.last_pid, look.sysctls.pid_max);
    look.pids.iter().for_each(|&id| ids.take(id));

    // copy_process() refuses at nr_threads >= max_threads, and counts every
    // task but the idle ones.
    let mut rooms = vec![
        Room::exact(Limit::ThreadsMax, look.sysctls.threads_max.saturating_sub(look.tasks)),
        Room::exact(Limit::PidMax, ids.left()),
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
    // Only what can be written counts, so the guard does not (mm/mmap.c,
    // `may_expand_vm`, which `mprotect` asks).
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

/// How many threads with this stack a process will create that looked like
/// this before its first, and what will stop it: the limit with the least room.
///
/// # Errors
/// The look's memory map cannot be parsed.
pub fn predict(look: &Look, abi: Abi, stack_bytes: u64) -> Result<Prediction, maps::BadLine> {
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

/// What stopped the threads, from what was seen afterwards.
pub fn bound(look: &Look, outcome: &Outcome, abi: Abi, stack_bytes: u64) -> Limit {
    let each_bytes = each_bytes(look, stack_bytes);
    match (outcome.failed.call.as_str(), outcome.failed.name.as_str()) {
        ("socket", "EMFILE") => return Limit::Nofile,
        ("bind", "EADDRINUSE") => return Limit::Port,
        ("pthread_create", "EAGAIN" | "ENOMEM") => {}
        // The kernel offered a place below vm.mmap_min_addr, and took it back.
        ("pthread_create", "EPERM") => return Limit::AddressSpace,
        ("socket", "ENFILE") => return Limit::FileMax,
        (_, "ENOMEM" | "ENOBUFS") => return Limit::Memory,
        _ => return Limit::None,
    }
    // All of these look alike to the caller: pthread_create says EAGAIN.
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
