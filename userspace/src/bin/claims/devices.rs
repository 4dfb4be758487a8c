//! Claims about device nodes: copying from and to programs, kernel-initiated
//! events, and /dev/mem.

use std::fs::{self, File, OpenOptions};
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nlrig_netlink::Errno;

use crate::Cases;
use crate::chardev::{Device, Exchange, Mapping, page_bytes};
use crate::events::{EVENT_TIMEOUT, woken_by};
use crate::evidence::{BoxError, Evidence};
use crate::process::{ForkedChild, pin_to_cpu};

pub const CASES: Cases = &[
    ("B1.1", copying_from_a_page_not_in_memory),
    ("B2.1", poll_and_a_timer_of_the_kernel),
    ("B2.2", a_blocked_read_and_a_timer_of_the_kernel),
    ("B2.3", a_signal_from_a_timer_of_the_kernel),
    ("B2.4", an_exchange_while_a_read_waits),
    ("B5.1", mapping_the_kernels_own_code),
    ("B5.2", memory_below_one_megabyte),
    ("B5.3", writing_to_the_kernels_own_code),
    ("B5.4", writing_to_the_interrupt_controller),
];

/// The libc crate lacks this constant.
const F_SETSIG: i32 = 10;
/// The delay of the kernel timer.
const DELAY: Duration = Duration::from_millis(100);

/// The argument of the ioctl is in a file mapping whose page is not in memory.
fn copying_from_a_page_not_in_memory(evidence: &mut Evidence) -> Result<(), BoxError> {
    let device = Device::open()?;
    // A file of the share that no process executes.
    let file = File::open("/run/nlrig/guest/workloads/fault")?;
    let before = usage()?;
    let mut exchange = Ok(());
    // Repeated, because the host may answer a single read before the process
    // sleeps.
    for _ in 0..10 {
        // SAFETY: posix_fadvise() takes an open descriptor and no pointer.
        let forgotten =
            unsafe { libc::posix_fadvise64(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        if forgotten != 0 {
            return Err(format!("posix_fadvise: {}", Errno(forgotten)).into());
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let mapping = Mapping::new(&file, 0, page_bytes(), protection, libc::MAP_PRIVATE)?;
        // SAFETY: the address is the start of a private mapping that nothing
        // else uses.
        exchange = unsafe { device.exchange_at(mapping.start().cast::<Exchange>()) }.map(|_| ());
        if exchange.is_err() {
            break;
        }
    }
    let after = usage()?;
    evidence.io_outcome("ioctl", &exchange);
    evidence.note(
        "faults_with_io",
        after.major_page_faults().saturating_sub(before.major_page_faults()),
    );
    let sleeps = |usage: Usage| usage.voluntary_context_switches();
    evidence.note("sleeps", sleeps(after).saturating_sub(sleeps(before)));
    Ok(())
}

fn usage() -> Result<Usage, nix::Error> {
    getrusage(UsageWho::RUSAGE_THREAD)
}

fn poll_and_a_timer_of_the_kernel(evidence: &mut Evidence) -> Result<(), BoxError> {
    let device = Device::open()?;
    woken_by(evidence, &device, PollFlags::POLLIN, || Ok(device.wake_after(DELAY)?))
}

fn a_blocked_read_and_a_timer_of_the_kernel(evidence: &mut Evidence) -> Result<(), BoxError> {
    // A child process, which can be killed if nothing wakes it.
    let reader = ForkedChild::start(|| {
        let device = Device::open()?;
        let start = Instant::now();
        device.wake_after(DELAY)?;
        let expiries = device.expiries()?;
        let waited_ms = start.elapsed().as_millis() as u64;
        Ok(serde_json::json!({ "expiries": expiries, "waited_ms": waited_ms }))
    })?;
    let report = reader.wait(EVENT_TIMEOUT);
    evidence.note("woken", report.is_ok());
    if let Ok(report) = report {
        for key in ["expiries", "waited_ms"] {
            evidence.note(key, report.get(key).cloned());
        }
    }
    Ok(())
}

fn a_signal_from_a_timer_of_the_kernel(evidence: &mut Evidence) -> Result<(), BoxError> {
    let device = Device::open()?;
    let fd = device.as_fd().as_raw_fd();
    // SAFETY: sigset_t consists of integers, for which zero is valid.
    let mut set: libc::sigset_t = unsafe { zeroed() };
    // SAFETY: the pointers are those of `set`; no handler is installed.
    unsafe {
        libc::sigaddset(&raw mut set, libc::SIGIO);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
    // SAFETY: these fcntl() commands take integers. F_SETSIG makes the signal
    // carry the descriptor.
    let asked = unsafe {
        libc::fcntl(fd, libc::F_SETOWN, libc::getpid()) == 0
            && libc::fcntl(fd, F_SETSIG, libc::SIGIO) == 0
            && libc::fcntl(fd, libc::F_SETFL, libc::O_RDWR | libc::O_ASYNC) == 0
    };
    if !asked {
        return Err(format!("fcntl: {}", Errno::last()).into());
    }
    let start = Instant::now();
    device.wake_after(DELAY)?;
    let limit = libc::timespec { tv_sec: EVENT_TIMEOUT.as_secs() as libc::time_t, tv_nsec: 0 };
    // SAFETY: siginfo_t consists of integers, for which zero is valid.
    let mut info: libc::siginfo_t = unsafe { zeroed() };
    // SAFETY: the pointers are those of local variables.
    let signal = unsafe { libc::sigtimedwait(&raw const set, &raw mut info, &raw const limit) };
    evidence.note("woken", signal == libc::SIGIO);
    evidence.note("waited_ms", start.elapsed().as_millis() as u64);
    evidence.note("by_kernel", info.si_code > 0);
    Ok(())
}

fn an_exchange_while_a_read_waits(evidence: &mut Evidence) -> Result<(), BoxError> {
    let device = Device::open()?;
    // A late wakeup, started first, so that the reader cannot block forever.
    device.wake_after(EVENT_TIMEOUT)?;
    thread::scope(|scope| {
        let reader = scope.spawn(|| device.expiries());
        thread::sleep(DELAY);
        let back = device.exchange(41);
        evidence.note("read_still_waits", !reader.is_finished());
        evidence.io_outcome("ioctl", &back);
        evidence.note("came_back", back.map_or(0, |back| back.value));
        // This restarts the same timer, which expires once.
        device.wake_after(Duration::ZERO)?;
        let read = reader.join().map_err(|_| "the reader panicked")?;
        evidence.note("read", read?);
        Ok(())
    })
}

fn mapping_the_kernels_own_code(evidence: &mut Evidence) -> Result<(), BoxError> {
    let memory = File::open("/dev/mem")?;
    let code = resource("Kernel code")?;
    evidence.note("address", format!("{:#x}", code.start));
    let mapping =
        Mapping::new(&memory, code.start, page_bytes(), libc::PROT_READ, libc::MAP_SHARED);
    evidence.io_outcome("map", &mapping);
    evidence.io_outcome("read", &memory.read_at(&mut vec![0; page_bytes()], code.start));
    Ok(())
}

/// A memory range of /proc/iomem.
struct Resource {
    start: u64,
    /// The last address plus one.
    end: u64,
}

/// The first range with this name.
fn resource(name: &str) -> Result<Resource, BoxError> {
    let text = fs::read_to_string("/proc/iomem")?;
    let line = text.lines().find(|line| line.trim_end().ends_with(&format!(": {name}")));
    let line = line.ok_or_else(|| format!("/proc/iomem: no {name}"))?;
    let range = line.split(" : ").next().unwrap_or("").trim();
    let (start, last) = range.split_once('-').ok_or("/proc/iomem: malformed range")?;
    let number = |text| u64::from_str_radix(text, 16);
    Ok(Resource { start: number(start)?, end: number(last)? + 1 })
}

/// The real-mode trampoline below 1 MiB, where the kernel starts other CPUs, is
/// not all zeros.
fn memory_below_one_megabyte(evidence: &mut Evidence) -> Result<(), BoxError> {
    const MEGABYTE: u64 = 1 << 20;
    let memory = File::open("/dev/mem")?;
    let low = resource("System RAM")?;
    let length = usize::try_from(low.end.min(MEGABYTE).saturating_sub(low.start))?;
    let length = length / page_bytes() * page_bytes();
    evidence.note("range", format!("{:#x}+{length:#x}", low.start));
    let mut read = vec![0xff; length];
    evidence.io_outcome("read", &memory.read_exact_at(&mut read, low.start));
    let not_zero = |bytes: &[u8]| bytes.iter().filter(|byte| **byte != 0).count() as u64;
    evidence.note("read_not_zero", not_zero(&read));
    let mapping = Mapping::new(&memory, low.start, length, libc::PROT_READ, libc::MAP_SHARED);
    evidence.io_outcome("map", &mapping);
    if let Ok(mapping) = mapping {
        evidence.note("mapped_not_zero", not_zero(&mapping.bytes()));
    }
    Ok(())
}

fn writing_to_the_kernels_own_code(evidence: &mut Evidence) -> Result<(), BoxError> {
    let memory = OpenOptions::new().read(true).write(true).open("/dev/mem")?;
    let code = resource("Kernel code")?;
    evidence.note("address", format!("{:#x}", code.start));
    let length = usize::try_from(code.end - code.start)? / page_bytes() * page_bytes();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let mapping = Mapping::new(&memory, code.start, length, protection, libc::MAP_SHARED);
    evidence.io_outcome("map", &mapping);
    evidence.io_outcome("write", &memory.write_at(&vec![0; length], code.start));
    if let Ok(mapping) = mapping {
        (0..length).step_by(size_of::<u32>()).for_each(|at| mapping.write(at, 0));
    }
    Ok(())
}

/// Lowers the task priority in one CPU's APIC, and makes another CPU's APIC
/// send interrupts with the vector of an exception. The kernel does not expect
/// that exception in its idle loop.
fn writing_to_the_interrupt_controller(evidence: &mut Evidence) -> Result<(), BoxError> {
    /// The physical address of each CPU's own APIC.
    const CONTROLLER: u64 = 0xfee0_0000;
    /// The task priority register, which blocks interrupts up to its value.
    const PRIORITY: usize = 0x80;
    /// The lower half of the interrupt command register.
    const COMMAND: usize = 0x300;
    /// To all CPUs but this one: vector 16, the x87 floating-point exception.
    const OTHERS: u32 = 0b11 << 18 | 16;
    let memory = OpenOptions::new().read(true).write(true).open("/dev/mem")?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let mapping = Mapping::new(&memory, CONTROLLER, page_bytes(), protection, libc::MAP_SHARED);
    evidence.io_outcome("map", &mapping);
    let mapping = mapping?;
    evidence.deliver()?;
    pin_to_cpu(1)?;
    mapping.write(PRIORITY, 0);
    pin_to_cpu(0)?;
    for _ in 0..20 {
        mapping.write(COMMAND, OTHERS);
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
