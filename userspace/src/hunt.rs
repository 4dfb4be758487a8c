//! Protocol of the workload `hunt`, the search for 1449: a setup and its thread
//! counts.

use serde::{Deserialize, Serialize};

use crate::protocol::Aslr;
use crate::snapshot::Failed;

/// A setup in which threads are counted. It affects only the workload's own
/// process and ends with it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// Bytes that each thread allocates with malloc and keeps; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub malloc_bytes: Option<u64>,
    /// The maximum number of malloc arenas, including the main arena:
    /// M_ARENA_MAX. If absent, glibc's default of two per CPU on 32 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arenas_max: Option<i32>,
    /// Bytes to map in one piece before the first thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapped_bytes: Option<u64>,
    /// RLIMIT_AS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_space_bytes: Option<u64>,
    /// RLIMIT_NPROC, which does not apply to root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nproc: Option<u64>,
    /// The layout of the address space.
    #[serde(default)]
    pub layout: AddressSpaceLayout,
    /// Address space layout randomisation.
    #[serde(default)]
    pub aslr: Aslr,
    /// The placement of the stack guard.
    #[serde(default)]
    pub guard: Guard,
}

/// The layout of the process's address space.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum AddressSpaceLayout {
    /// Top-down, then bottom-up if that finds no hole: the kernel's default.
    #[default]
    Default,
    /// Bottom-up from a third of the address space: ADDR_COMPAT_LAYOUT.
    BottomUp,
    /// Top-down only: the space above mmap_base is mapped before the first
    /// thread.
    TopDownOnly,
    /// 3 GiB on a kernel whose default is 4 GiB: ADDR_LIMIT_3GB.
    Limit3G,
}

/// The placement of the guard page of a thread's stack.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// Below a stack of full size, as in glibc since 2.27.
    #[default]
    Outside,
    /// Within the stack's size.
    Inside,
    /// No guard page.
    None,
}

/// A JSON object that the workload `hunt` writes.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum HuntReport {
    /// A heartbeat during thread creation.
    Progress {
        /// Threads alive.
        threads: u64,
    },
    /// The result of one run.
    Count(Count),
}

/// The result of creating threads until a call fails.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Count {
    /// RLIMIT_STACK when the program started.
    pub stack_bytes: u64,
    /// Workers alive at once, without the main thread.
    pub threads: u64,
    /// Workers with a bound socket.
    pub sockets: u64,
    /// Workers that received their own echo.
    pub echoes: u64,
    /// The call that failed.
    pub failed: Failed,
    /// Whether another stack could still be mapped. If so, address space was
    /// not the limit.
    pub room: bool,
    /// Bytes mapped at the end, including guards and reserved ranges.
    pub mapped_bytes: u64,
    /// Size in bytes of the largest hole at the end.
    pub largest_hole_bytes: u64,
    /// Bytes in the larger holes above mmap_base, where the top-down search
    /// starts.
    pub hole_above_bytes: u64,
    /// Tasks alive in the whole system.
    pub tasks: u64,
    /// kernel.threads-max.
    pub threads_max: u64,
    /// RLIMIT_NPROC, if it applies to the user.
    pub nproc: Option<u64>,
}
