//! One count: creates threads until a call fails.

use std::fs::{self, File};
use std::io;
use std::os::fd::FromRawFd;

use nix::sys::resource::{Resource, getrlimit};
use nlrig_guest::hunt::{Count, Guard, HuntReport, Setup};
use nlrig_guest::protocol::{WORKLOAD_FD, write_line};
use nlrig_guest::snapshot::{self, Failed, PROGRESS_EVERY};
use nlrig_guest::workers::{self, ThreadAttributes};

use crate::layout;

const PAGE_BYTES: u64 = 4096;
/// Heap for the report, reserved in case no address space is left.
const REPORT_BYTES: usize = 96 << 10;
const MAPS: &str = "/proc/self/maps";

/// Counts threads in this process and reports the result.
pub fn count(setup: &Setup, stack_bytes: u64) -> io::Result<()> {
    // SAFETY: PID 1 opened this descriptor, and the parent process only waits.
    let mut report = unsafe { File::from_raw_fd(WORKLOAD_FD) };
    let threads_max = fs::read_to_string("/proc/sys/kernel/threads-max")?;
    let threads_max = threads_max.trim().parse().map_err(io::Error::other)?;
    let base = layout::mmap_base(&fs::read_to_string(MAPS)?)?;
    layout::arrange(setup)?;

    if let Some(most) = setup.arenas_max {
        // SAFETY: mallopt() changes a setting of malloc.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, most) };
    }
    if setup.malloc_bytes.is_none() {
        // If threads allocate, the heap must grow as in any program.
        workers::reserve_heap(((4 << 30) / stack_bytes.max(PAGE_BYTES)) as usize);
    }
    let spare = Vec::<u8>::with_capacity(REPORT_BYTES);
    let attributes = attributes(setup.guard, stack_bytes)?;
    let malloc_bytes = usize::try_from(setup.malloc_bytes.unwrap_or(0)).map_err(invalid_size)?;
    let (counts, failure) =
        workers::create_until_failure(attributes.as_ref(), malloc_bytes, |threads| {
            if threads % PROGRESS_EVERY != 0 {
                return Ok(());
            }
            write_line(&mut report, &HuntReport::Progress { threads: u64::from(threads) })
        })?;

    let room = layout::fits(stack_bytes + PAGE_BYTES);
    drop(spare);
    workers::free_descriptors();
    let space = snapshot::survey(MAPS)?;
    let above = |&(start, end): &(u64, u64)| end.saturating_sub(start.max(base));
    write_line(
        &mut report,
        &HuntReport::Count(Count {
            stack_bytes,
            threads: counts.threads,
            sockets: counts.sockets,
            echoes: counts.echoes,
            failed: Failed::from(failure),
            room,
            mapped_bytes: space.mapped_bytes,
            largest_hole_bytes: space
                .holes
                .iter()
                .map(|(start, end)| end - start)
                .max()
                .unwrap_or(0),
            hole_above_bytes: space.holes.iter().map(above).sum(),
            tasks: snapshot::loadavg()?.0,
            threads_max,
            nproc: nproc()?,
        }),
    )
}

/// Thread attributes for the guard. None for glibc's defaults.
fn attributes(guard: Guard, stack_bytes: u64) -> io::Result<Option<ThreadAttributes>> {
    let bytes = |bytes: u64| usize::try_from(bytes).map_err(invalid_size);
    Ok(match guard {
        Guard::Outside => None,
        Guard::Inside => Some(ThreadAttributes::with_stack(bytes(stack_bytes - PAGE_BYTES)?)?),
        Guard::None => {
            let mut attributes = ThreadAttributes::with_stack(bytes(stack_bytes)?)?;
            attributes.set_guard_size(0)?;
            Some(attributes)
        }
    })
}

/// RLIMIT_NPROC of the user. None for root, whom it does not limit.
fn nproc() -> io::Result<Option<u64>> {
    if nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let (soft, _) = getrlimit(Resource::RLIMIT_NPROC)?;
    // rlim_t is 32 bits wide on i386, where u64::from is not a no-op.
    #[allow(clippy::useless_conversion, reason = "rlim_t has the width of the architecture")]
    Ok((soft != libc::RLIM_INFINITY).then_some(u64::from(soft)))
}

fn invalid_size(err: std::num::TryFromIntError) -> io::Error {
    io::Error::other(err)
}
