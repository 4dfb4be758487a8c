//! Claims about files in /proc and sysfs: events and sizes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::poll::PollFlags;
use nlrig_guest::uapi::NLRIG_BIG_BYTES;

use crate::Cases;
use crate::chardev::page_bytes;
use crate::events::woken_by;
use crate::evidence::{BoxError, Evidence};
use crate::process::{ForkedChild, run_in_child};

pub const CASES: Cases = &[
    ("B3.1", an_event_of_a_file_of_proc),
    ("B3.2", an_event_of_a_file_of_sysfs),
    ("B3.3", an_event_of_the_kernels_own_in_proc),
    ("B4.1", text_of_sysfs),
    ("B4.2", bytes_of_sysfs),
    ("B4.3", a_megabyte_of_proc),
    ("B4.4", a_table_of_the_kernels_own_in_proc),
    ("B4.5", a_large_write_to_proc),
];

/// The delay before the write, so that the reader is already waiting.
const DELAY: Duration = Duration::from_millis(100);
/// Larger than any of the files.
const BUFFER_BYTES: usize = 2 * BIG_BYTES;
const BIG_BYTES: usize = NLRIG_BIG_BYTES as usize;

fn an_event_of_a_file_of_proc(evidence: &mut Evidence) -> Result<(), BoxError> {
    event_of_write(evidence, "/proc/nlrig/value", "/proc/nlrig/value")
}

fn an_event_of_a_file_of_sysfs(evidence: &mut Evidence) -> Result<(), BoxError> {
    event_of_write(evidence, "/sys/kernel/nlrig/event", "/sys/kernel/nlrig/value")
}

/// Waits for an event on the file `waits` while another process writes to
/// `written`.
fn event_of_write(evidence: &mut Evidence, waits: &str, written: &str) -> Result<(), BoxError> {
    let mut file = File::open(waits)?;
    // POLLPRI reports changes since the last read.
    io::copy(&mut file, &mut io::sink())?;
    woken_by(evidence, &file, PollFlags::POLLPRI, || {
        ForkedChild::start(|| {
            std::thread::sleep(DELAY);
            std::fs::write(written, "1")?;
            Ok(serde_json::Value::Null)
        })
    })
}

/// In a child with its own mount namespace.
fn an_event_of_the_kernels_own_in_proc(evidence: &mut Evidence) -> Result<(), BoxError> {
    run_in_child(|| {
        // SAFETY: unshare() takes no pointer, and this process has a single
        // thread.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
            return Err(io::Error::last_os_error().into());
        }
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_PRIVATE | MsFlags::MS_REC, nothing)?;
        let mounts = File::open("/proc/self/mounts")?;
        woken_by(evidence, &mounts, PollFlags::POLLPRI, || {
            std::thread::sleep(DELAY);
            Ok(mount(Some("none"), "/tmp", Some("tmpfs"), MsFlags::empty(), nothing)?)
        })?;
        Ok(serde_json::Value::Null)
    })?;
    Ok(())
}

/// Notes the size of one read() and of the whole file. Returns the contents.
fn note_sizes(evidence: &mut Evidence, path: &str) -> Result<Vec<u8>, BoxError> {
    let mut file = File::open(path)?;
    let mut bytes = vec![0; BUFFER_BYTES];
    let one_read = file.read(&mut bytes)?;
    evidence.note("one_read", one_read as u64);
    bytes.truncate(one_read);
    file.take(BUFFER_BYTES as u64).read_to_end(&mut bytes)?;
    evidence.note("read_in_all", bytes.len() as u64);
    Ok(bytes)
}

fn text_of_sysfs(evidence: &mut Evidence) -> Result<(), BoxError> {
    evidence.note("page", page_bytes() as u64);
    note_sizes(evidence, "/sys/kernel/nlrig/page")?;
    // Any number of zeros is a valid number, even if the kernel truncates the
    // write.
    let file = OpenOptions::new().write(true).open("/sys/kernel/nlrig/value")?;
    let written = file.write_at(&vec![b'0'; 2 * page_bytes()], 0);
    evidence.io_outcome("write", &written);
    evidence.note("one_write", written.unwrap_or(0) as u64);
    Ok(())
}

fn bytes_of_sysfs(evidence: &mut Evidence) -> Result<(), BoxError> {
    const PATH: &str = "/sys/kernel/nlrig/blob";
    evidence.note("page", page_bytes() as u64);
    let pattern: Vec<u8> = (0..BIG_BYTES).map(|place| (place % 251) as u8).collect();
    let file = OpenOptions::new().write(true).open(PATH)?;
    evidence.note("one_write", file.write_at(&pattern, 0)? as u64);
    file.write_all_at(&pattern, 0)?;
    let read = note_sizes(evidence, PATH)?;
    evidence.note("as_written", read == pattern);
    Ok(())
}

fn a_megabyte_of_proc(evidence: &mut Evidence) -> Result<(), BoxError> {
    evidence.note("page", page_bytes() as u64);
    let bytes = note_sizes(evidence, "/proc/nlrig/big")?;
    // Each line contains its line number.
    let whole = String::from_utf8(bytes)?
        .lines()
        .enumerate()
        .all(|(place, line)| line.parse() == Ok(place));
    evidence.note("whole", whole);
    Ok(())
}

fn a_table_of_the_kernels_own_in_proc(evidence: &mut Evidence) -> Result<(), BoxError> {
    evidence.note("page", page_bytes() as u64);
    note_sizes(evidence, "/proc/kallsyms")?;
    Ok(())
}

/// Uses the process's own /proc/self/mem.
fn a_large_write_to_proc(evidence: &mut Evidence) -> Result<(), BoxError> {
    const BYTES: usize = 64 << 10;
    evidence.note("page", page_bytes() as u64);
    let (source, mut target) = (vec![0x5a; BYTES], vec![0; BYTES]);
    let memory = OpenOptions::new().write(true).open("/proc/self/mem")?;
    let written = memory.write_at(&source, target.as_mut_ptr().expose_provenance() as u64);
    evidence.io_outcome("write", &written);
    evidence.note("one_write", written.unwrap_or(0) as u64);
    // black_box, because the compiler does not know about the write through
    // /proc.
    evidence.note("arrived", std::hint::black_box(&target) == &source);
    Ok(())
}
