//! What a workload sees of its own limits, before its first thread and after
//! its last: the evidence that predictions and verdicts are made of.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;

use nix::sys::resource::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

use crate::netlink::Failure;
use crate::{maps, pids};

/// What the workload `threads` writes, one object a line.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// Just before the first thread.
    Look(Look),
    /// A sign of life: this many threads are alive.
    Progress {
        /// Workers that hold a socket and have their echo.
        threads: u64,
    },
    /// After the last thread; all of them still live.
    Outcome(Outcome),
}

/// The limits of a process and how much of each is used, at one moment.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Look {
    /// The width of a pointer of this program.
    pub word_bits: u32,
    /// The size of a page.
    pub page_bytes: u64,
    /// The effective user.
    pub uid: u32,
    /// The text of /proc/self/maps.
    pub maps: String,
    /// The personality: the flags of personality(2) that were set before exec.
    pub personality: u32,
    /// Tasks alive in the whole system, kernel threads included: the count that
    /// kernel.threads-max is held against.
    pub tasks: u64,
    /// Tasks alive that belong to this user.
    pub user_tasks: u64,
    /// The task id handed out last.
    pub last_pid: u64,
    /// All task ids in use.
    pub pids: Vec<u32>,
    /// Open file descriptors of this process.
    pub open_files: u64,
    /// Bytes of this process's areas that only it can write: VmData.
    pub data_bytes: u64,
    /// The system's memory.
    pub memory: Memory,
    /// The kernel's parameters.
    pub sysctls: Sysctls,
    /// The process's limits.
    pub limits: Limits,
}

/// The system's memory, as /proc/meminfo and kernel parameters have it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Memory {
    /// All that the kernel manages.
    pub total_bytes: u64,
    /// What could be had.
    pub available_bytes: u64,
    /// What is free of the part that the kernel can use for itself; none where
    /// it can use all.
    pub low_free_bytes: Option<u64>,
    /// How much may be promised under vm.overcommit_memory=2.
    pub commit_limit_bytes: u64,
    /// How much is promised.
    pub committed_bytes: u64,
    /// vm.admin_reserve_kbytes: what all but root leave of it.
    pub admin_reserve_bytes: u64,
    /// vm.user_reserve_kbytes: what a process leaves to its user's others.
    pub user_reserve_bytes: u64,
}

/// Kernel parameters that limit threads, sockets or mappings.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Sysctls {
    /// kernel.threads-max: tasks in the whole system.
    pub threads_max: u64,
    /// kernel.pid_max: the first task id that is never handed out.
    pub pid_max: u64,
    /// vm.max_map_count: areas in one address space.
    pub max_map_count: u64,
    /// vm.mmap_min_addr: the lowest address a mapping may have.
    pub mmap_min_addr: u64,
    /// vm.legacy_va_layout: mappings are placed from the bottom up if it is not 0.
    pub legacy_va_layout: u64,
    /// kernel.randomize_va_space: nothing is placed at random if it is 0.
    pub randomize_va_space: u64,
    /// vm.overcommit_memory: 0 refuses only what is absurd, 1 nothing, 2 what
    /// goes beyond a limit.
    pub overcommit_memory: u64,
}

/// Soft limits of a process; none is unlimited.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Limits {
    /// RLIMIT_STACK.
    pub stack_bytes: Option<u64>,
    /// RLIMIT_NOFILE: one above the highest file descriptor.
    pub nofile: Option<u64>,
    /// RLIMIT_NPROC: tasks of one user.
    pub nproc: Option<u64>,
    /// RLIMIT_AS.
    pub address_space_bytes: Option<u64>,
    /// RLIMIT_DATA.
    pub data_bytes: Option<u64>,
}

/// What came of creating threads until it failed.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Outcome {
    /// Workers alive at once, the main thread not among them.
    pub threads: u64,
    /// Workers that hold a bound socket.
    pub sockets: u64,
    /// Workers that got their own echo.
    pub echoes: u64,
    /// What failed and ended it.
    pub failed: Failed,
    /// From just before the first thread to the failure.
    pub elapsed_ns: u64,
    /// Tasks alive in the whole system.
    pub tasks: u64,
    /// Task ids that could still be handed out.
    pub pid_room: u64,
    /// Areas of the address space: lines of /proc/self/maps, but for the
    /// kernel's own page [vsyscall].
    pub map_areas: u64,
    /// Bytes in all of them.
    pub mapped_bytes: u64,
    /// Bytes in those that only this process can write: VmData.
    pub data_bytes: u64,
    /// The largest gaps between mappings, as start and end, the gap below the
    /// first mapping among them; at most [`HOLES_MAX`].
    pub holes: Vec<(u64, u64)>,
    /// The end of the last mapping: what is above it is a gap too.
    pub mapped_end: u64,
    /// Open file descriptors of this process.
    pub open_files: u64,
    /// Memory that could be had.
    pub memory_available_bytes: u64,
}

/// After how many workers the program gives a sign of life: where memory ends the
/// kernel kills it, and the last sign is all that is known of it.
pub const PROGRESS_EVERY: u32 = 256;

/// How many gaps an [`Outcome`] lists.
pub const HOLES_MAX: usize = 16;

/// A call that failed.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Failed {
    /// The function: `pthread_create`, `socket`, `bind`, …
    pub call: String,
    /// Its error number.
    pub errno: i32,
    /// The error's name, as in errno(3).
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

impl Look {
    /// Looks at this process and the system it runs in.
    ///
    /// # Errors
    /// The file in /proc that cannot be read or understood.
    pub fn take() -> io::Result<Look> {
        let uid = nix::unistd::geteuid().as_raw();
        let (tasks, last_pid) = loadavg()?;
        let mut ids = Vec::new();
        let mut user_tasks = 0;
        each_task(|id, owner| {
            ids.push(id);
            user_tasks += u64::from(owner == uid);
        })?;
        Ok(Look {
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
            limits: Limits {
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

impl Outcome {
    /// Looks at this process and the system after the last thread, without a
    /// large allocation: there may be no address space left for one.
    ///
    /// # Errors
    /// The file in /proc that cannot be read or understood.
    pub fn take(counts: Counts, failed: Failed, elapsed_ns: u64) -> io::Result<Outcome> {
        let (tasks, last_pid) = loadavg()?;
        let mut taken = pids::Room::new(last_pid, sysctl("kernel/pid_max")?);
        each_task(|id, _| taken.take(id))?;
        let space = survey("/proc/self/maps")?;
        Ok(Outcome {
            threads: counts.threads,
            sockets: counts.sockets,
            echoes: counts.echoes,
            failed,
            elapsed_ns,
            tasks,
            pid_room: taken.left(),
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

/// How far the workers got.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Workers alive.
    pub threads: u64,
    /// Workers with a bound socket.
    pub sockets: u64,
    /// Workers with an echo.
    pub echoes: u64,
}

/// An address space, as its map shows it.
pub struct Survey {
    /// How many areas there are.
    pub areas: u64,
    /// Bytes in all of them.
    pub mapped_bytes: u64,
    /// The largest gaps, as start and end; at most [`HOLES_MAX`].
    pub holes: Vec<(u64, u64)>,
    /// The end of the last area.
    pub end: u64,
}

/// Counts the areas of a memory map and finds its largest gaps, a line at a
/// time: tens of thousands of threads make a map of megabytes.
///
/// # Errors
/// The file cannot be read or understood.
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

/// Calls back with the id and owner of every task that /proc shows.
fn each_task(mut seen: impl FnMut(u32, u32)) -> io::Result<()> {
    for process in fs::read_dir("/proc")? {
        let process = process?;
        if process.file_name().to_str().is_none_or(|name| name.parse::<u32>().is_err()) {
            continue;
        }
        // A process that ends meanwhile is no error.
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

/// The personality of this process.
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

/// Open descriptors, the one that counts them left out.
fn open_files() -> io::Result<u64> {
    Ok(fs::read_dir("/proc/self/fd")?.count().saturating_sub(1) as u64)
}

/// One figure of /proc/meminfo, in bytes.
fn meminfo(name: &str) -> io::Result<u64> {
    kib("/proc/meminfo", name)
}

/// VmData of this process.
fn data_bytes() -> io::Result<u64> {
    kib("/proc/self/status", "VmData:")
}

/// A line `Name:  123 kB`, in bytes.
fn kib(path: &str, name: &str) -> io::Result<u64> {
    fs::read_to_string(path)?
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| unreadable(path))
}

fn page_bytes() -> u64 {
    // sysconf cannot fail for the page size; x86 has 4 KiB pages.
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|bytes| u64::try_from(bytes).ok())
        .unwrap_or(4096)
}

fn unreadable(path: &str) -> io::Error {
    io::Error::other(format!("{path} is not what Linux 6.1 prints"))
}
