//! Snapshots of a workload's limits and resource usage, before its first thread
//! and after its last. Predictions and verdicts are based on them.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;

use nix::sys::resource::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

use crate::netlink::Failure;
use crate::{maps, pids};

/// A JSON object that the workload `threads` writes.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum ThreadReport {
    /// The snapshot before the first thread.
    #[serde(rename = "look")]
    Snapshot(Snapshot),
    /// A heartbeat during thread creation.
    Progress {
        /// Workers with a socket and an echo.
        threads: u64,
    },
    /// The state after the last thread, while all threads are alive.
    Outcome(ThreadOutcome),
}

/// The limits and resource usage of a process at one moment.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Snapshot {
    /// The pointer width of the program in bits.
    pub word_bits: u32,
    /// The page size.
    pub page_bytes: u64,
    /// The effective user id.
    pub uid: u32,
    /// The text of /proc/self/maps.
    pub maps: String,
    /// The flags of personality(2).
    pub personality: u32,
    /// Tasks alive in the whole system, including kernel threads.
    /// kernel.threads-max limits this number.
    pub tasks: u64,
    /// Tasks alive of this user.
    pub user_tasks: u64,
    /// The task id assigned last.
    pub last_pid: u64,
    /// All task ids in use.
    pub pids: Vec<u32>,
    /// Open file descriptors of this process.
    pub open_files: u64,
    /// Bytes of private writable mappings: VmData.
    pub data_bytes: u64,
    /// Memory of the system.
    pub memory: Memory,
    /// Sysctls.
    pub sysctls: Sysctls,
    /// Resource limits of the process.
    pub limits: ProcessLimits,
}

/// Memory of the system, from /proc/meminfo and sysctls.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Memory {
    /// MemTotal: memory that the kernel manages.
    pub total_bytes: u64,
    /// MemAvailable: memory available without swapping.
    pub available_bytes: u64,
    /// LowFree: free memory that the kernel can use for itself. None if the
    /// kernel has no highmem.
    pub low_free_bytes: Option<u64>,
    /// CommitLimit: the limit under vm.overcommit_memory=2.
    pub commit_limit_bytes: u64,
    /// Committed_AS: memory committed.
    pub committed_bytes: u64,
    /// vm.admin_reserve_kbytes: memory reserved for root.
    pub admin_reserve_bytes: u64,
    /// vm.user_reserve_kbytes: memory reserved for the user's other processes.
    pub user_reserve_bytes: u64,
}

/// Sysctls that limit threads, sockets or mappings.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Sysctls {
    /// kernel.threads-max: tasks in the whole system.
    pub threads_max: u64,
    /// kernel.pid_max: the lowest task id that is never assigned.
    pub pid_max: u64,
    /// vm.max_map_count: VMAs of an address space.
    pub max_map_count: u64,
    /// vm.mmap_min_addr: the lowest address of a mapping.
    pub mmap_min_addr: u64,
    /// vm.legacy_va_layout: non-zero selects the bottom-up layout.
    pub legacy_va_layout: u64,
    /// kernel.randomize_va_space: 0 disables address space randomisation.
    pub randomize_va_space: u64,
    /// vm.overcommit_memory: 0 refuses obvious overcommits, 1 refuses nothing,
    /// 2 enforces CommitLimit.
    pub overcommit_memory: u64,
}

/// Soft resource limits of a process; None is unlimited.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ProcessLimits {
    /// RLIMIT_STACK.
    pub stack_bytes: Option<u64>,
    /// RLIMIT_NOFILE: the highest file descriptor plus one.
    pub nofile: Option<u64>,
    /// RLIMIT_NPROC: tasks of one user.
    pub nproc: Option<u64>,
    /// RLIMIT_AS.
    pub address_space_bytes: Option<u64>,
    /// RLIMIT_DATA.
    pub data_bytes: Option<u64>,
}

/// The result of creating threads until a call fails.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ThreadOutcome {
    /// Workers alive at once, without the main thread.
    pub threads: u64,
    /// Workers with a bound socket.
    pub sockets: u64,
    /// Workers that received their own echo.
    pub echoes: u64,
    /// The call that failed.
    pub failed: Failed,
    /// Time from just before the first thread to the failure.
    pub elapsed_ns: u64,
    /// Tasks alive in the whole system.
    pub tasks: u64,
    /// Task ids that can still be assigned.
    pub pid_room: u64,
    /// VMAs: lines of /proc/self/maps, except the kernel's `[vsyscall]` page.
    pub map_areas: u64,
    /// Bytes in all VMAs.
    pub mapped_bytes: u64,
    /// Bytes of private writable mappings: VmData.
    pub data_bytes: u64,
    /// The largest holes between mappings as (start, end), including the hole
    /// below the first mapping; at most [`HOLES_MAX`].
    pub holes: Vec<(u64, u64)>,
    /// The end of the last mapping. The space above is a hole too.
    pub mapped_end: u64,
    /// Open file descriptors of this process.
    pub open_files: u64,
    /// MemAvailable.
    pub memory_available_bytes: u64,
}

/// Workers between two heartbeats. If the kernel kills the program for lack of
/// memory, the last heartbeat is the only result.
pub const PROGRESS_EVERY: u32 = 256;

/// The maximum number of holes in a [`ThreadOutcome`].
pub const HOLES_MAX: usize = 16;

/// A call that failed.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Failed {
    /// The function: `pthread_create`, `socket`, `bind`, ...
    pub call: String,
    /// The errno.
    pub errno: i32,
    /// The name of the errno, as in errno(3).
    pub name: String,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Failed {
        Failed {
            call: failure.call.name().to_string(),
            errno: failure.errno,
            name: format!("{:?}", nix::errno::Errno::from_raw(failure.errno)),
        }
    }
}

impl Snapshot {
    /// Captures the state of this process and the system.
    ///
    /// # Errors
    /// A file in /proc cannot be read or parsed.
    pub fn capture() -> io::Result<Snapshot> {
        let uid = nix::unistd::geteuid().as_raw();
        let (tasks, last_pid) = loadavg()?;
        let mut ids = Vec::new();
        let mut user_tasks = 0;
        each_task(|id, owner| {
            ids.push(id);
            user_tasks += u64::from(owner == uid);
        })?;
        Ok(Snapshot {
            word_bits: usize::BITS,
            page_bytes: page_bytes(),
            uid,
            tasks,
            user_tasks,
            personality: persona()?,
            last_pid,
            pids: ids,
            open_files: open_files()?,
            data_bytes: data_bytes()?,
            memory: Memory {
                total_bytes: meminfo("MemTotal:")?,
                available_bytes: meminfo("MemAvailable:")?,
                low_free_bytes: meminfo("LowFree:").ok(),
                commit_limit_bytes: meminfo("CommitLimit:")?,
                committed_bytes: meminfo("Committed_AS:")?,
                admin_reserve_bytes: sysctl("vm/admin_reserve_kbytes")?.saturating_mul(1024),
                user_reserve_bytes: sysctl("vm/user_reserve_kbytes")?.saturating_mul(1024),
            },
            sysctls: Sysctls {
                threads_max: sysctl("kernel/threads-max")?,
                pid_max: sysctl("kernel/pid_max")?,
                max_map_count: sysctl("vm/max_map_count")?,
                mmap_min_addr: sysctl("vm/mmap_min_addr")?,
                legacy_va_layout: sysctl("vm/legacy_va_layout")?,
                randomize_va_space: sysctl("kernel/randomize_va_space")?,
                overcommit_memory: sysctl("vm/overcommit_memory")?,
            },
            limits: ProcessLimits {
                stack_bytes: soft_limit(Resource::RLIMIT_STACK)?,
                nofile: soft_limit(Resource::RLIMIT_NOFILE)?,
                nproc: soft_limit(Resource::RLIMIT_NPROC)?,
                address_space_bytes: soft_limit(Resource::RLIMIT_AS)?,
                data_bytes: soft_limit(Resource::RLIMIT_DATA)?,
            },
            maps: fs::read_to_string("/proc/self/maps")?,
        })
    }
}

impl ThreadOutcome {
    /// Captures the state after the last thread. Avoids large allocations,
    /// because no address space may be left.
    ///
    /// # Errors
    /// A file in /proc cannot be read or parsed.
    pub fn capture(counts: Counts, failed: Failed, elapsed_ns: u64) -> io::Result<ThreadOutcome> {
        let (tasks, last_pid) = loadavg()?;
        let mut free_pids = pids::FreePids::new(last_pid, sysctl("kernel/pid_max")?);
        each_task(|id, _| free_pids.mark_used(id))?;
        let space = survey("/proc/self/maps")?;
        Ok(ThreadOutcome {
            threads: counts.threads,
            sockets: counts.sockets,
            echoes: counts.echoes,
            failed,
            elapsed_ns,
            tasks,
            pid_room: free_pids.count(),
            map_areas: space.areas,
            mapped_bytes: space.mapped_bytes,
            data_bytes: data_bytes()?,
            holes: space.holes,
            mapped_end: space.end,
            open_files: open_files()?,
            memory_available_bytes: meminfo("MemAvailable:")?,
        })
    }
}

/// Progress of the workers.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Workers alive.
    pub threads: u64,
    /// Workers with a bound socket.
    pub sockets: u64,
    /// Workers that received their echo.
    pub echoes: u64,
}

/// A summary of an address space.
pub struct Survey {
    /// The number of VMAs.
    pub areas: u64,
    /// Bytes in all VMAs.
    pub mapped_bytes: u64,
    /// The largest holes as (start, end); at most [`HOLES_MAX`].
    pub holes: Vec<(u64, u64)>,
    /// The end of the last VMA.
    pub end: u64,
}

/// Counts the VMAs of a memory map and finds its largest holes. Reads line by
/// line: with tens of thousands of threads, the map takes megabytes.
///
/// # Errors
/// The file cannot be read or parsed.
pub fn survey(path: &str) -> io::Result<Survey> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut survey =
        Survey { areas: 0, mapped_bytes: 0, holes: Vec::with_capacity(HOLES_MAX + 1), end: 0 };
    let mut line = Vec::with_capacity(256);
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let (start, end) = std::str::from_utf8(&line)
            .ok()
            .and_then(maps::addresses)
            .ok_or_else(|| unreadable(path))?;
        if start >= maps::KERNEL {
            continue;
        }
        survey.areas += 1;
        survey.mapped_bytes += end - start;
        if start > survey.end {
            survey.holes.push((survey.end, start));
            survey.holes.sort_by_key(|&(start, end)| std::cmp::Reverse(end - start));
            survey.holes.truncate(HOLES_MAX);
        }
        survey.end = end;
    }
    Ok(survey)
}

/// Calls `seen` with the id and the owner of every task in /proc.
fn each_task(mut seen: impl FnMut(u32, u32)) -> io::Result<()> {
    for process in fs::read_dir("/proc")? {
        let process = process?;
        if process.file_name().to_str().is_none_or(|name| name.parse::<u32>().is_err()) {
            continue;
        }
        // Processes that end meanwhile are skipped.
        let (Ok(meta), Ok(tasks)) = (process.metadata(), fs::read_dir(process.path().join("task")))
        else {
            continue;
        };
        for task in tasks {
            if let Some(id) = task?.file_name().to_str().and_then(|name| name.parse().ok()) {
                seen(id, meta.uid());
            }
        }
    }
    Ok(())
}

pub use nlrig_init::proc::loadavg;

/// The personality flags of this process.
fn persona() -> io::Result<u32> {
    Ok(nix::sys::personality::get()?.bits().cast_unsigned())
}

fn sysctl(name: &str) -> io::Result<u64> {
    let path = format!("/proc/sys/{name}");
    fs::read_to_string(&path)?.trim().parse().map_err(|_| unreadable(&path))
}

fn soft_limit(resource: Resource) -> io::Result<Option<u64>> {
    let (soft, _) = getrlimit(resource)?;
    // rlim_t is 32 bits wide on i386, where u64::from is not a no-op.
    #[allow(clippy::useless_conversion, reason = "rlim_t has the width of the architecture")]
    let soft_bytes = u64::from(soft);
    Ok((soft != nix::libc::RLIM_INFINITY).then_some(soft_bytes))
}

/// Open file descriptors, except the one that counts them.
fn open_files() -> io::Result<u64> {
    Ok(fs::read_dir("/proc/self/fd")?.count().saturating_sub(1) as u64)
}

/// A value of /proc/meminfo, in bytes.
fn meminfo(name: &str) -> io::Result<u64> {
    kib("/proc/meminfo", name)
}

/// VmData of this process.
fn data_bytes() -> io::Result<u64> {
    kib("/proc/self/status", "VmData:")
}

/// Parses a line `Name:  123 kB` into bytes.
fn kib(path: &str, name: &str) -> io::Result<u64> {
    fs::read_to_string(path)?
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| unreadable(path))
}

fn page_bytes() -> u64 {
    // sysconf() cannot fail for the page size; x86 has 4 KiB pages.
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|bytes| u64::try_from(bytes).ok())
        .unwrap_or(4096)
}

fn unreadable(path: &str) -> io::Error {
    io::Error::other(format!("{path}: unknown format"))
}
