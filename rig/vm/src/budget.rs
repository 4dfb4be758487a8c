//! What the host can hold: memory and cores, shared by all runs at once.
//!
//! Several processes (cargo-nextest makes one of each test) and several threads
//! in each start virtual machines and know nothing of one another. So what the
//! host has is cut into tokens, each a byte of a file in the cache's folder of
//! locks, and a machine runs as long as it has its tokens locked. The kernel
//! takes the locks of a killed process back.
//!
//! Who removes a file lets later runs count anew: the host is over-committed
//! until the runs before have ended, and nothing worse. Runs with other caches
//! are not counted; what they use shows in the memory that is available.

mod memory;
mod tokens;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nlrig_host::{Error, Result, bail};

use self::tokens::{Tokens, Turn};
use crate::accel::Accel;
use nlrig_host::cache::Cache;
use nlrig_host::interrupt;
use nlrig_host::procfs::MEMINFO;

/// A byte of this file stands for [`TOKEN_BYTES`] of memory.
const MEMORY: &str = "vm-memory";
/// A byte of this file stands for a core.
const CORES: &str = "vm-cores";
/// Who waits for tokens has this file locked whole, and others wait for it.
const TURN: &str = "vm-turn";

/// Fine enough for the smallest guests, and few enough to look for quickly.
const TOKEN_BYTES: u64 = 64 << 20;
/// What a machine needs beside its guest's memory: QEMU and the share daemons.
const OVERHEAD_BYTES: u64 = 256 << 20;
/// The part of the memory that machines may have; the rest is for the host's
/// kernel, the rig itself and whatever else runs.
const PERCENT: u64 = 85;

/// How long [`Budget::take`] waits for other runs.
const RUNS_LIMIT: Duration = Duration::from_secs(2 * 60 * 60);
/// How long it waits for other programs to give memory back.
const PROGRAMS_LIMIT: Duration = Duration::from_secs(60);

/// What this host can hold.
#[derive(Clone, Debug)]
pub struct Budget {
    /// The host's memory, or what its control group may have of it.
    total_bytes: u64,
    memory_bytes: u64,
    cores: u32,
    /// Where the locks are.
    folder: PathBuf,
    /// Where the kernel says how much memory is available.
    meminfo: PathBuf,
    runs_limit: Duration,
    programs_limit: Duration,
}

/// What one virtual machine needs of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The guest's memory with QEMU's own.
    pub memory_bytes: u64,
    /// The host's cores, not the guest's.
    pub cores: u32,
}

impl Budget {
    /// The budget of this host, shared by all who use this cache.
    ///
    /// # Errors
    /// There is no proc file system.
    pub fn of_host(cache: &Cache) -> Result<Budget> {
        let meminfo = PathBuf::from(MEMINFO);
        let total_bytes = memory::total_bytes(&meminfo)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Budget {
            total_bytes,
            memory_bytes: total_bytes / 100 * PERCENT,
            cores: u32::try_from(cores).unwrap_or(u32::MAX),
            folder: cache.root().join("lock"),
            meminfo,
            runs_limit: RUNS_LIMIT,
            programs_limit: PROGRAMS_LIMIT,
        })
    }

    /// What a machine with so many processors and so much guest memory claims.
    pub fn claim(&self, accel: Accel, cpus: u32, guest_bytes: u64) -> Claim {
        let memory_bytes = guest_bytes.saturating_add(OVERHEAD_BYTES);
        Claim { memory_bytes, cores: cores(accel, cpus, self.cores) }
    }

    /// Why this host can never hold the claim; none if it can.
    pub fn lacks(&self, claim: &Claim) -> Option<String> {
        if claim.memory_tokens() > self.memory_tokens() {
            return Some(format!(
                "the guest needs {} GiB of memory with its QEMU; this host can give {} of its {} GiB",
                gib(claim.memory_bytes),
                gib(self.memory_bytes),
                gib(self.total_bytes)
            ));
        }
        (claim.cores > self.cores)
            .then(|| format!("the guest needs {} cores; this host has {}", claim.cores, self.cores))
    }

    /// How many such machines this host holds at once, at least one.
    pub fn at_once(&self, claim: &Claim) -> usize {
        let by_memory = self.memory_tokens() / claim.memory_tokens().max(1);
        let by_cores = u64::from(self.cores / claim.cores.max(1));
        usize::try_from(by_memory.min(by_cores)).unwrap_or(usize::MAX).max(1)
    }

    /// Waits until the host can hold the claim beside all others, and takes it.
    /// Calls `waiting` once if it has to wait.
    ///
    /// One run at a time looks for room, and the others wait for it: so a small
    /// claim does not pass a large one, which might else wait for ever. Who needs
    /// several machines at once must not wait for one while it holds another:
    /// two such runs would wait for each other.
    ///
    /// # Errors
    /// The host [`lacks`](Budget::lacks) what is claimed; other runs held it for
    /// two hours; for a minute memory was short with no other machine to wait
    /// for; a file cannot be locked;
    /// [`Interrupted`](nlrig_host::interrupt::Interrupted).
    pub fn take(&self, claim: &Claim, mut waiting: impl FnMut()) -> Result<Held> {
        if let Some(lack) = self.lacks(claim) {
            bail!("{lack}");
        }
        let mut turn = Turn::open(&self.folder, TURN)?;
        let held = Held {
            memory: Tokens::open(&self.folder, MEMORY)?,
            cores: Tokens::open(&self.folder, CORES)?,
        };
        let start = Instant::now();
        let mut short_since = None;
        let mut said = false;
        loop {
            interrupt::check()?;
            match self.attempt(claim, &mut turn, &held)? {
                None => return Ok(held),
                Some(Obstacle::Runs) => short_since = None,
                Some(Obstacle::Programs { available_bytes }) => {
                    let since = short_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.programs_limit {
                        return Err(short(claim, available_bytes));
                    }
                }
            }
            if start.elapsed() >= self.runs_limit {
                return Err(self.late(claim));
            }
            if !std::mem::replace(&mut said, true) {
                waiting();
            }
            std::thread::sleep(interrupt::POLL);
        }
    }

    /// Takes all of a claim, or nothing and says what is in the way.
    fn attempt(&self, claim: &Claim, turn: &mut Turn, held: &Held) -> Result<Option<Obstacle>> {
        if !turn.has_come()? {
            return Ok(Some(Obstacle::Runs));
        }
        let memory = held.memory.find(self.memory_tokens(), claim.memory_tokens())?;
        let cores = held.cores.find(self.cores.into(), claim.cores.into())?;
        let (Some(memory), Some(cores)) = (memory, cores) else {
            return Ok(Some(Obstacle::Runs));
        };
        let available_bytes = memory::available_bytes(&self.meminfo)?;
        if available_bytes < claim.memory_bytes {
            // Only if no machine of the rig is left to end is it for others to
            // give memory back.
            let is_alone = held.memory.taken(&(0..self.memory_tokens()))?.is_none();
            return Ok(Some(match is_alone {
                true => Obstacle::Programs { available_bytes },
                false => Obstacle::Runs,
            }));
        }
        if held.memory.lock(&memory)? && held.cores.lock(&cores)? {
            return Ok(None);
        }
        // Only if the file of turns was removed do two come this far.
        held.memory.unlock();
        held.cores.unlock();
        Ok(Some(Obstacle::Runs))
    }

    fn late(&self, claim: &Claim) -> Error {
        Error::new(format!(
            "waited {} s for {} GiB of memory and {} cores, which other virtual machines of the rig hold or wait for (of {} GiB and {} cores in all): end them, or run fewer at once",
            self.runs_limit.as_secs(),
            gib(claim.memory_bytes),
            claim.cores,
            gib(self.memory_bytes),
            self.cores
        ))
    }

    fn memory_tokens(&self) -> u64 {
        self.memory_bytes / TOKEN_BYTES
    }
}

impl Claim {
    fn memory_tokens(&self) -> u64 {
        self.memory_bytes.div_ceil(TOKEN_BYTES)
    }
}

/// How many of the host's cores a machine claims. Two under emulation even if it
/// has one processor: two emulated machines on two cores starve each other's
/// timer calibration. Never more than there are: a guest with more processors
/// than its host is slow, and must be possible.
fn cores(accel: Accel, cpus: u32, host_cores: u32) -> u32 {
    let wanted = match accel {
        Accel::Kvm => cpus,
        Accel::Tcg => cpus.max(2),
    };
    wanted.min(host_cores)
}

/// Why a claim has to wait.
enum Obstacle {
    /// Other runs have what it needs, or wait for theirs first.
    Runs,
    /// Nobody else in the rig has memory, and yet there is too little.
    Programs { available_bytes: u64 },
}

fn short(claim: &Claim, available_bytes: u64) -> Error {
    Error::new(format!(
        "the guest needs {} GiB of memory with its QEMU, and {} GiB are available: other programs hold the rest; end some, or give the guest less",
        gib(claim.memory_bytes),
        gib(available_bytes)
    ))
}

/// The host's memory for one machine, until it is dropped. So whoever holds it
/// drops it after the machine's processes.
#[derive(Debug)]
pub struct Held {
    memory: Tokens,
    cores: Tokens,
}

/// Bytes as GiB with a digit after the point.
fn gib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests;
