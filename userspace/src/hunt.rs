//! What host and guest say to each other about the search for 1449: a set-up,
//! and what was counted in it.

use serde::{Deserialize, Serialize};

use crate::look::Failed;
use crate::protocol::Aslr;

/// A set-up in which threads are counted. Everything in it is the program's own:
/// nothing stays set when it ends.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// What each thread takes by malloc and keeps; nothing if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub malloc_bytes: Option<u64>,
    /// How many arenas malloc may have, the main one among them: M_ARENA_MAX.
    /// Two for each processor, by glibc's own choice, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arenas_max: Option<i32>,
    /// What is mapped, in one piece, before the first thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapped_bytes: Option<u64>,
    /// RLIMIT_AS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_space_bytes: Option<u64>,
    /// RLIMIT_NPROC, which binds all users but root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nproc: Option<u64>,
    /// How the kernel lays out the address space.
    #[serde(default)]
    pub layout: Layout,
    /// Whether it does so at random.
    #[serde(default)]
    pub aslr: Aslr,
    /// Where the guard of a stack is.
    #[serde(default)]
    pub guard: Guard,
}

/// How an address space is laid out.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// From the top down, and from the bottom up when that finds nothing.
    #[default]
    Default,
    /// From a third of the address space up: ADDR_COMPAT_LAYOUT.
    BottomUp,
    /// From the top down only: what is above the point where that begins is
    /// taken before the first thread.
    TopDownOnly,
    /// Three GiB in all, on a kernel that would give four: ADDR_LIMIT_3GB.
    Limit3G,
}

/// Where the guard page of a thread's stack is.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// Below the stack, which has its full size: glibc since 2.27.
    #[default]
    Outside,
    /// Part of the stack's size.
    Inside,
    /// There is none.
    None,
}

/// What the workload `hunt` writes, one object a line.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// A sign of life: so many threads are alive.
    Progress {
        /// Their number.
        threads: u64,
    },
    /// One start of the program came to its end.
    Count(Count),
}

/// What came of creating threads until that failed.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Count {
    /// RLIMIT_STACK when the program started.
    pub stack_bytes: u64,
    /// Workers alive at once, the main thread not among them.
    pub threads: u64,
    /// Workers that hold a bound socket.
    pub sockets: u64,
    /// Workers that got their own echo.
    pub echoes: u64,
    /// What failed and ended it.
    pub failed: Failed,
    /// Whether a further stack could still be mapped: then it was no want of
    /// address space that ended it.
    pub room: bool,
    /// Bytes mapped at the end, guards and reserves too.
    pub mapped_bytes: u64,
    /// Bytes of the largest gap at the end.
    pub largest_hole_bytes: u64,
    /// Bytes of the larger gaps above the point where the kernel's search from the
    /// top begins.
    pub hole_above_bytes: u64,
    /// Tasks alive in the whole system, and the most there may be.
    pub tasks: u64,
    /// kernel.threads-max.
    pub threads_max: u64,
    /// RLIMIT_NPROC, if it applies to this user.
    pub nproc: Option<u64>,
}
